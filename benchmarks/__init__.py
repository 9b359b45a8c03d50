"""Benchmarks: each prints ratios to a reference that was run in the same job, beside its floor and its goal."""
