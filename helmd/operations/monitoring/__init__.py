"""Watching the suite: states, health, measurements."""
