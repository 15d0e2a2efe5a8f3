"""PID 1 of an execution: reads the brief, does the work, writes the journal. Standard library only, Python 3.9+."""
