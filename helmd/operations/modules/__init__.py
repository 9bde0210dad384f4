"""Modules of the suite and what they depend on: use cases."""
