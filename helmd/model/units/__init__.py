"""What the state of a unit and the health of its service mean."""
