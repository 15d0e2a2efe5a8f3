"""Walking a pipeline without running it: stub agents, a virtual clock, and which branches were taken."""
