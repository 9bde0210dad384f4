"""What is exposed to others and should not be, and the firewall: decisions without I/O."""
