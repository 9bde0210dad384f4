"""The components of helmd: the watched suite, the log store, browser sessions, and request handlers."""
