"""Setting up a suite for an account: clusters, databases, keys."""
