"""Djinn: runs teams of AI agents, each step in its own container, on a Celery fleet, with Django keeping the state."""
