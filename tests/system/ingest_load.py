"""A load generator that runs in the sandbox: posts log entries in four ways, and prints the results.

``ingest_load.py RATE SECONDS SERVICE PORT`` posts RATE entries a second for SECONDS, over the unix socket and TCP, with
persistent connections and with one for each request. It prints JSON: how many were ``accepted``, which ``failed`` (way,
error, second), and the duration of the ``slowest`` in seconds.
"""

import http.client
import json
import os
import socket
import sys
import threading
import time

SOCKET = os.environ["XDG_RUNTIME_DIR"] + "/hivematrix/helm.sock"
WAYS = ("unix kept", "unix new", "tcp kept", "tcp new")
WORKERS = 16
TIMEOUT = 5.0
"""Timeout of a request in seconds, as in the suite's services."""


class UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(SOCKET)


def connection_of(way: str, port: int) -> http.client.HTTPConnection:
    if way.startswith("unix"):
        return UnixConnection("helm")
    return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)


def was_closed(connection: http.client.HTTPConnection) -> bool:
    """Return whether the server has closed a persistent connection; clients check that before reuse (urllib3)."""
    if connection.sock is None:
        return False
    connection.sock.setblocking(False)
    try:
        return connection.sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    finally:
        connection.sock.settimeout(TIMEOUT)


class Poster:
    def __init__(self, rate: int, seconds: float, service: str, port: int) -> None:
        self.rate, self.seconds, self.service, self.port = rate, seconds, service, port
        self.begun = time.monotonic() + 0.2
        self.lock = threading.Lock()
        self.accepted = 0
        self.slowest = 0.0
        self.failed: list[tuple[str, str, float]] = []

    def run(self) -> None:
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, number: int) -> None:
        way = WAYS[number % len(WAYS)]
        connection: http.client.HTTPConnection | None = None
        sent = 0
        while (due := self.begun + (sent * WORKERS + number) / self.rate) < self.begun + self.seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            if connection is None or was_closed(connection):
                connection = connection_of(way, self.port)
            begun = time.monotonic()
            try:
                self._post(connection, f"{way} {number} {sent}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                with self.lock:
                    self.failed.append((way, repr(error), round(begun - self.begun, 2)))
                connection = None
            else:
                with self.lock:
                    self.accepted += 1
                    self.slowest = max(self.slowest, time.monotonic() - begun)
            if connection is not None and way.endswith("new"):
                connection.close()
                connection = None
            sent += 1

    def _post(self, connection: http.client.HTTPConnection, message: str) -> None:
        body = json.dumps({"service_name": self.service, "logs": [{"level": "INFO", "message": message}]})
        connection.request("POST", "/api/logs/ingest", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status} {content[:200]!r}")


if __name__ == "__main__":
    poster = Poster(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    poster.run()
    print(json.dumps({"accepted": poster.accepted, "failed": poster.failed, "slowest": poster.slowest}))
