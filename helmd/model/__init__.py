"""Facts and decisions of the domain, without any input or output."""
