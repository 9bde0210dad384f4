"""Interface to systemd: rendering and installing units, D-Bus calls, resource usage of units."""
