"""Starting, stopping and restarting services."""
