"""Reading systemd's journal."""
