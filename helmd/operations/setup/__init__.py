"""Making a suite out of an account: clusters, databases, keys."""
