"""What runs tell: metrics, verdicts, the page of a run, lineage."""
