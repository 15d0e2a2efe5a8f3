"""Containers: one contract, two runners. Plain Python, no Django."""
