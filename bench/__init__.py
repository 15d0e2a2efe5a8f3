"""Benchmarks of Djinn's promises: each figure stands beside a baseline that was measured in the same run."""
