"""Opens as many connections to the suite's PostgreSQL as it gets, says how many in report.json, and keeps them.

PORT_OF_SUITE names the TCP port, on which they stay silent; sessions are of DATABASE_URL. COUNT is how many it tries
of each. Silent ones that the server closes are opened again.
"""

import contextlib
import json
import os
import socket
import time

import psycopg


def silent(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.setblocking(False)
    return connection


def alive(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def main() -> None:
    port, count = int(os.environ["PORT_OF_SUITE"]), int(os.environ["COUNT"])
    sessions = []
    with contextlib.suppress(psycopg.OperationalError):
        for _ in range(count):
            sessions.append(psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=5))
    with open("report.new", "w") as file:
        json.dump({"sessions": len(sessions)}, file)
    os.replace("report.new", "report.json")
    held: list[socket.socket] = []
    while True:
        if os.path.exists("silent"):
            held = [connection for connection in held if alive(connection)]
            with contextlib.suppress(OSError):
                while len(held) < count:
                    held.append(silent(port))
        time.sleep(0.2)


if __name__ == "__main__":
    main()
