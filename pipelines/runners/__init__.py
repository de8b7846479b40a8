"""How a pipeline is run or compiled."""
