"""The application, its sockets, errors as replies, and limits on requests."""
