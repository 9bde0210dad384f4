"""The application, its sockets, error responses, and limits on requests."""
