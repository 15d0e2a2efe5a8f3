"""What people write: YAML within bounds, and what is wrong with it by file, line and key. Plain Python."""
