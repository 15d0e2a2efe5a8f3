"""The event log: ordered streams without gaps, read after a sequence number, with hints when there is more."""
