"""Reading log entries: search, counts, export, notifications."""
