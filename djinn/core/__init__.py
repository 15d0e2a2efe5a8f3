"""What every other app stands on: errors, transitions, logging, checks, the installation."""
