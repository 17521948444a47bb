"""What tracing costs, next to the alternatives: `make bench`, or `python -m benchmarks --quick` for a glance."""
