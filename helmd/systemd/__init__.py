"""systemd's words: rendering and installing units, the manager's bus, what a unit's processes use."""
