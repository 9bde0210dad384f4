"""A minimal service with a health check: returns 200 for any request on the port in its environment."""

import _socket
import os

listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(os.environ["PORT"])))
listener.listen(16)
while True:
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    connection = _socket.socket(fileno=descriptor)
    connection.recv(4096)
    connection.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    connection.close()
