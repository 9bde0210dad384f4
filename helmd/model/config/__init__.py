"""Settings declared once, and reading TOML against those declarations."""
