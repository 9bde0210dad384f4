"""helmctl logs."""
