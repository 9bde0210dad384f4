"""Pages for browsers, rendered on the server."""
