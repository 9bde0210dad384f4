"""Implementation of `scripts/sandbox`: a container with systemd as PID 1, for demos and system tests."""
