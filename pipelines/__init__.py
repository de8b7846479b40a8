"""The TFX pipelines: stage 1, and each new task of stage 2."""
