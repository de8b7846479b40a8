"""Multi-task models of other libraries on the rows that the benchmark of quality gives them."""
