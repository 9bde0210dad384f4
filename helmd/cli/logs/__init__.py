"""The command ``helmctl logs``."""
