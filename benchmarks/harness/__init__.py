"""What benchmarks share: workers that take turns, the published run, costs and limits."""
