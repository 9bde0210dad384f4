"""What `scripts/sandbox` is made of: a real systemd as PID 1 in a container, for trying Helm and for its tests."""
