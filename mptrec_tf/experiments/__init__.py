"""Declared experiments: run once, stored as JSON lines, shown as tables and pages."""

from mptrec_tf.experiments.config import Experiment, Variant
from mptrec_tf.experiments.runner import Runner
from mptrec_tf.experiments.store import Results

__all__ = ["Experiment", "Results", "Runner", "Variant"]
