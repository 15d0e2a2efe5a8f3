"""The pipeline language: from a YAML file to what starts next. Plain Python, no Django."""
