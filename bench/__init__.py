"""Benchmarks: ours, the peer and the physical limit, alternating in one run."""
