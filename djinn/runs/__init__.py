"""Pipelines in motion: runs, step runs, and what moves them."""
