"""Reading the log store: search, counts, export, notifications."""
