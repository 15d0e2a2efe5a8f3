"""What runs inside an execution's container. It imports nothing of `djinn`."""
