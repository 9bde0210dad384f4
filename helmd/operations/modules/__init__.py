"""Use cases about modules of the suite and their dependencies."""
