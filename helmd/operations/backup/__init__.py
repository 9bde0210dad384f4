"""Making backups of a suite, checking them, and restoring one."""
