"""Metrics and states of services."""
