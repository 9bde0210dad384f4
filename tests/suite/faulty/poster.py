#!/usr/bin/python3
"""Posts numbered log entries to Helm's socket; each batch has an Idempotency-Key and is retried until accepted.

NAME is the service. COUNT entries are sent in batches of BATCH (10) by CLIENTS (4) threads, RATE entries per second in
total (1000). Prints, as JSON, the number of retries and the last responses to batches that were not accepted.
"""

import http.client
import json
import os
import socket
import sys
import threading
import time

BATCH_TIMEOUT = 300.0
"""Seconds for one batch."""


def posted(name: str, number: int) -> dict[str, object]:
    """Return an entry, which is stored unchanged."""
    return {
        "level": ("INFO", "WARNING", "ERROR", "DEBUG")[number % 4],
        "message": f"entry {number} of {name}: posted, größer \N{SNOWMAN}\n\tand a second line",
        "trace_id": f"{name}-{number}" if number % 2 else None,
        "context": {"number": number},
    }


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Poster:
    def __init__(self, path: str, name: str, count: int, batch: int, rate: float) -> None:
        self._path, self._name, self._count, self._batch, self._rate = path, name, count, batch, rate
        self._lock = threading.Lock()
        self._next = 1
        self._began = time.monotonic()
        self.repeated = 0
        self.refused: list[str] = []

    def work(self) -> None:
        connection = Connection(self._path)
        while True:
            with self._lock:
                first, self._next = self._next, self._next + self._batch
            if first > self._count:
                return
            time.sleep(max(0.0, self._began + first / self._rate - time.monotonic()))
            numbers = range(first, min(first + self._batch, self._count + 1))
            body = {"service_name": self._name, "logs": [posted(self._name, number) for number in numbers]}
            self._send(connection, json.dumps(body).encode(), f"{self._name}-{first}", len(numbers))

    def _send(self, connection: Connection, body: bytes, key: str, count: int) -> None:
        deadline = time.monotonic() + BATCH_TIMEOUT
        while True:
            try:
                connection.request(
                    "POST",
                    "/api/logs/ingest",
                    body,
                    {"Content-Type": "application/json", "Idempotency-Key": key},
                )
                answer = connection.getresponse()
                said, wait = answer.read(), float(answer.headers.get("Retry-After", "0.2"))
                if answer.status == 200 and json.loads(said)["ingested"] == count:
                    return
                problem = f"{key}: {answer.status} {said[:300]!r}"
                if answer.status not in (429, 503):
                    self.refused.append(problem)
                    return
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                problem, wait = f"{key}: {error!r}", 0.1
            if time.monotonic() > deadline:
                self.refused.append(problem)
                return
            self.repeated += 1
            time.sleep(wait)


def main() -> None:
    name, count = os.environ["NAME"], int(os.environ["COUNT"])
    path = os.environ["XDG_RUNTIME_DIR"] + "/hivematrix/helm.sock"
    poster = Poster(path, name, count, int(os.environ.get("BATCH", "10")), float(os.environ.get("RATE", "1000")))
    threads = [threading.Thread(target=poster.work) for _ in range(int(os.environ.get("CLIENTS", "4")))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"repeated": poster.repeated, "refused": poster.refused}))
    sys.exit(1 if poster.refused else 0)


if __name__ == "__main__":
    main()
