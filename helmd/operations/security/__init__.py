"""The security audit, and the firewall."""
