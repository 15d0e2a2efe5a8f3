"""Where models are served, what a call costs, and the record of every call."""
