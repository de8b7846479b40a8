"""Where the parts of a model lie in what the Trainer makes. Needs neither TFX nor TensorFlow."""

SERVING_DIRECTORY = "Format-Serving"
"""TFX's name, within a Model artifact, of the SavedModel that is served."""

MODEL_FILE = "assets.extra/model.keras"
TRAINING_FILE = "assets.extra/training.json"
"""Beside the SavedModel: the Keras model, and how it was trained."""
