"""State of units and health of services."""
