"""Benchmarks: every figure is a ratio to a baseline taken in the same run. ``python -m bench.run --list``."""
