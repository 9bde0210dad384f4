"""What a backup has in it, which backups are kept, and what a restore does; pure."""
