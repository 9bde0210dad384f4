"""Code shared by the sample services: settings, log formats, HTTP server, token verification, notes store."""
