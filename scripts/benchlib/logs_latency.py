"""Latency from printing a line to finding it by a query, and to receiving it from the stream."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from logs_figures import MeasurementError, note, say, show_times
from logs_lines import number_of, printed_at
from logs_tools import HELM_SOCKET, HELM_UNITS, Printer, Sizes, figure, settle, store, units, wait_for

_MARKERS_A_SECOND = 20
_BEFORE_MARKERS = 1.5
_POLL = 0.002
_JOIN_TIMEOUT = 10.0
_AIM = "aim p50 < 100, p99 < 300 ms"


class _Seen:
    """Latencies in seconds of the marked lines, by number, as seen by one watcher."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}

    def note(self, message: str) -> None:
        self.seconds.setdefault(number_of(message), time.time() - printed_at(message))


def latency(sizes: Sizes) -> None:
    units("start", *HELM_UNITS)
    with store() as connection:
        settle(connection, sizes.timeout)
    for rate in sizes.background:
        found: list[float] = []
        streamed: list[float] = []
        followed: list[float] = []
        for number in range(sizes.runs):
            with figure(f"latency, run {number + 1}"):
                note(f"latency at {rate:,} lines/s, run {number + 1}")
                # Some seconds longer than the markers take, for starting and stopping.
                seconds = sizes.markers / _MARKERS_A_SECOND + 8
                noise = Printer("noise", seconds=seconds, rate=rate, every=max(0.01, 1 / rate))
                try:
                    time.sleep(min(2.0, seconds / 3))
                    by_query, by_stream, by_journalctl = _one(sizes)
                finally:
                    noise.stop()
                for what, seen in (("query", by_query), ("stream", by_stream)):
                    if missing := sizes.markers - len(seen.seconds):
                        say(f"WRONG: {missing} of {sizes.markers} marked lines were not received by the {what}")
                found += by_query.seconds.values()
                streamed += by_stream.seconds.values()
                followed += by_journalctl.seconds.values()
        show_times(f"print to queryable, at {rate:,} lines/s", found, _AIM)
        show_times(f"print to a client of the stream, at {rate:,} lines/s", streamed, _AIM)
        show_times("    print to journalctl -f, the same lines", followed)


def _one(sizes: Sizes) -> tuple[_Seen, _Seen, _Seen]:
    query, stream, journal = _Seen(), _Seen(), _Seen()
    # The delay is for the followers, which can start only when the name is known.
    marker = Printer(
        "marker", lines=sizes.markers, rate=_MARKERS_A_SECOND, every=1 / _MARKERS_A_SECOND, delay=_BEFORE_MARKERS
    )
    with _following_stream(marker.name, stream), _following_journal(marker.unit, journal):
        try:
            _poll(marker, sizes.markers, query)
            wait_for(lambda: min(len(stream.seconds), len(journal.seconds)) >= sizes.markers, 2)
        finally:
            marker.stop()
    return query, stream, journal


def _poll(marker: Printer, count: int, seen: _Seen) -> None:
    statement = (
        "SELECT id, message FROM log_entries WHERE service_name = %s AND timestamp > now() - interval '10 seconds'"
        " AND id > %s AND source = 'journal' ORDER BY timestamp, id"
    )
    end = time.monotonic() + count / _MARKERS_A_SECOND + 30
    last = 0
    with store(user="helm") as connection:
        while len(seen.seconds) < count and time.monotonic() < end:
            for number, message in connection.execute(statement, (marker.name, last), prepare=True).fetchall():
                last = number
                seen.note(message)
            time.sleep(_POLL)


@contextmanager
def _following_stream(name: str, seen: _Seen) -> Iterator[None]:
    """Follow server-sent events of service NAME over helmd's socket."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(HELM_SOCKET))
    except OSError as error:
        connection.close()
        raise MeasurementError(f"the stream: {HELM_SOCKET}: {error}") from None
    path = f"/api/logs/stream?service={name}&source=journal"
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: helm\r\nAccept: text/event-stream\r\n\r\n".encode())

    def follow() -> None:
        with connection.makefile("rb") as response:
            status = response.readline()
            if b" 200 " not in status:
                note(f"the stream returned {status!r}")
                return
            for text in response:
                if text.startswith(b"data:"):
                    entry = json.loads(text[5:])
                    if isinstance(entry, dict) and "message" in entry:
                        seen.note(entry["message"])

    def quietly() -> None:
        try:
            follow()
        except (OSError, ValueError) as error:
            note(f"the stream has ended: {error}")

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    try:
        yield
    finally:
        # The server may have closed it.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        thread.join(_JOIN_TIMEOUT)
        connection.close()


@contextmanager
def _following_journal(unit: str, seen: _Seen) -> Iterator[None]:
    # With "-n 0", systemd 252 misses the first lines of a unit that has none yet.
    process = subprocess.Popen(
        ["journalctl", "--user", "-q", "-f", "--since=now", "-o", "cat", f"_SYSTEMD_USER_UNIT={unit}"],
        stdout=subprocess.PIPE,
        text=True,
    )

    def follow() -> None:
        assert process.stdout is not None
        for text in process.stdout:
            if text.startswith("{"):
                seen.note(json.loads(text)["message"])

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        process.kill()
        process.wait()
        thread.join(_JOIN_TIMEOUT)
