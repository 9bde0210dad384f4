"""Private PostgreSQL clusters of the owning account, and roles and databases on them or on an external server."""
