"""Waits for the port of the suite's PostgreSQL (PORT_OF_SUITE), takes it, and asks whoever comes for its password.

Writes "listening" into report.txt in its own directory, then a line for each client: "tls refused" for one that wants
TLS, "startup" for one that goes on without, and "password" followed by what it sent.
"""

import os
import socket
import struct
import sys
import threading
import time

_TLS_REQUEST = 80877103
_CLEARTEXT = b"R" + struct.pack("!ii", 8, 3)


def note(line: str) -> None:
    with open("report.txt", "a") as report:
        report.write(line + "\n")


def _message(connection: socket.socket) -> bytes:
    (length,) = struct.unpack("!i", connection.recv(4, socket.MSG_WAITALL))
    return connection.recv(length - 4, socket.MSG_WAITALL)


def attend(connection: socket.socket) -> None:
    """One client of the protocol, version 3.0 (PostgreSQL, "Message Flow")."""
    try:
        connection.settimeout(10)
        first = _message(connection)
        if struct.unpack("!i", first[:4])[0] == _TLS_REQUEST:
            note("tls refused")
            connection.sendall(b"N")
            first = _message(connection)
        note("startup " + " ".join(first[4:].decode("utf-8", "replace").split("\0")))
        connection.sendall(_CLEARTEXT)
        connection.recv(1)
        note("password " + _message(connection).decode("utf-8", "replace"))
    except (OSError, struct.error):
        pass
    finally:
        connection.close()


def main() -> int:
    port = int(os.environ["PORT_OF_SUITE"])
    while True:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            break
        except OSError:
            listener.close()
            time.sleep(0.002)
    listener.listen(64)
    note("listening")
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=attend, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
