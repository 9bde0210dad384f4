"""The log store in PostgreSQL."""
