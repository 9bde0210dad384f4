"""Measurements and states of services."""
