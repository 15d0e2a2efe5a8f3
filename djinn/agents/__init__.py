"""The registry over `agents/`: who there is, with which persona, model and tools."""
