"""The published files of Ali-CCP and their fields."""

FILES = {
    "train_samples": "sample_skeleton_train.csv",
    "train_common": "common_features_train.csv",
    "test_samples": "sample_skeleton_test.csv",
    "test_common": "common_features_test.csv",
}
LABELS = ("click", "conversion")
SAMPLE_COLUMNS = ("sample_id", *LABELS, "common_feature_index", "count")
COMMON_COLUMNS = ("common_feature_index", "count")
USER_FIELDS = ("101", "121", "122", "124", "125", "126", "127", "128", "129")
HISTORY_FIELDS = ("109_14", "110_14", "127_14", "150_14")
ITEM_FIELDS = ("205", "206", "207", "216")
INTENTION_FIELD = "210"
CROSSED_FIELDS = ("508", "509", "702", "853")
SCENARIO_FIELD = "301"
SINGLE = (*USER_FIELDS, *ITEM_FIELDS, *CROSSED_FIELDS, SCENARIO_FIELD)
"""The fields of the published runs, one id each."""
MULTIVALUED = (*HISTORY_FIELDS, INTENTION_FIELD)
"""Fields with several ids: what a user did before, by category, shop, brand and intention; and the
intentions of an item."""


def column(field: str) -> str:
    """Name of the column that holds a field."""
    return f"field_{field}"
