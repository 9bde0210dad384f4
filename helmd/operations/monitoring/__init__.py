"""Monitoring of the suite: states, health, metrics."""
