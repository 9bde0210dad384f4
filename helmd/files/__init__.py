"""Writing files that must be whole: atomically, durably, privately."""
