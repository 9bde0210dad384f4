"""An account's configuration: loading, importing, applying it to units."""
