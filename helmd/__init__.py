"""HiveMatrix Helm: runs a suite of services as systemd user units and keeps their logs."""

__version__ = "1.2.0"
