"""Inserting log entries, with the position up to which the journal is stored."""
