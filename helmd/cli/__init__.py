"""The commands behind helmctl."""
