"""The components of the pipelines, and what the stock ones of TFX are given."""
