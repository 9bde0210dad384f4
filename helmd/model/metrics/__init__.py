"""Which points of a chart are made of what."""
