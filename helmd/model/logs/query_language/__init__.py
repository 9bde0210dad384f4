"""The query language for log entries (docs/api.md, "The query language"): parsed here, for page, API and helmctl."""
