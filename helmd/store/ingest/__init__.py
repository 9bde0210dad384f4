"""Writing log entries and the position up to which the journal is stored."""
