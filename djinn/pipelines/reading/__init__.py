"""From the nodes of a file to the parts of a `Pipeline`; what is wrong is reported and replaced by a default."""
