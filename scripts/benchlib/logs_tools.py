"""What the parts of `scripts/bench logs` share: how much is done, and the store and units as the bench sees them."""

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from logs_figures import say

HOME = Path.home()
BENCH = Path(__file__).resolve().parent
RUNTIME = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")) / "hivematrix"
STORE_SOCKET = RUNTIME / "postgres-helm"
HELM_SOCKET = RUNTIME / "helm.sock"
PORT = 5004
HELM_UNITS = ("helmd", "helmd-journal")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done. ``keep``: the store is somebody's, so nothing of it is dropped and nothing is made up in it."""

    runs: int = 3
    keep: bool = False
    backlog: int = 1_000_000
    rsyslog_lines: int = 300_000
    flood_seconds: float = 60.0
    writers: int = 4
    sustained_seconds: float = 300.0
    sustained_rate: int = 10_000
    markers: int = 200
    background: tuple[int, ...] = (100, 1000)
    batches: tuple[int, ...] = (1, 10, 1000)
    clients: tuple[int, ...] = (1, 4, 32)
    http_seconds: float = 5.0
    rows: int = 10_000_000
    days: int = 90
    samples: int = 100
    pages: int = 1000


SHORT = Sizes(
    runs=1,
    backlog=5_000,
    rsyslog_lines=2_000,
    flood_seconds=1.0,
    writers=2,
    sustained_seconds=2.0,
    sustained_rate=1_000,
    markers=10,
    background=(100,),
    batches=(1, 1000),
    clients=(4,),
    http_seconds=0.2,
    rows=20_000,
    days=4,
    samples=3,
    pages=10,
)
"""Everything once and tiny: that it works, not what it costs."""


def run(*words: str | Path, check: bool = True) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, errors="replace")
    if check and done.returncode:
        sys.exit(f"bench: {' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def timed(*words: str | Path) -> float:
    """Seconds that a command takes, which must succeed; or fail silently, as those do that find nothing."""
    began = time.perf_counter()
    done = subprocess.run([str(word) for word in words], capture_output=True, check=False)
    took = time.perf_counter() - began
    if done.returncode and done.stderr.strip() not in (b"", b"no lines"):
        sys.exit(f"bench: {' '.join(map(str, words))}: exit code {done.returncode}\n{done.stderr.decode()}")
    return took


# The store


def store(database: str = "helm", user: str = "postgres") -> psycopg.Connection[Any]:
    """A connection to the cluster of the log store, in autocommit, as its superuser."""
    return psycopg.connect(conninfo(database, user), autocommit=True)


def conninfo(database: str = "helm", user: str = "postgres") -> str:
    return f"host={STORE_SOCKET} dbname={database} user={user} options='-c timezone=UTC'"


def value(connection: psycopg.Connection[Any], query: str, *given: object) -> Any:
    """The one value that a query gives."""
    found = connection.execute(query, given, prepare=True).fetchone()  # type: ignore[call-overload]
    return None if found is None else found[0]


def counted(connection: psycopg.Connection[Any], names: Sequence[str]) -> int:
    """How many entries the store has of services, by its rollups: they commit with the rows, and cost no scan."""
    return int(
        value(
            connection,
            "SELECT coalesce(sum(entries), 0) FROM log_counts_minute WHERE service_name = ANY(%s)",
            list(names),
        )
    )


def counted_exactly(connection: psycopg.Connection[Any], names: Sequence[str]) -> int:
    """The same without what systemd says about their units."""
    return int(
        value(
            connection,
            "SELECT count(*) FROM log_entries WHERE service_name = ANY(%s) AND source IN ('journal', 'http')",
            list(names),
        )
    )


def all_stored(
    connection: psycopg.Connection[Any], names: Sequence[str], lines: int, within: float
) -> tuple[float, int]:
    """Waits until the store has LINES of services NAMES: when it was seen to (time.monotonic), and how many it has.

    Too few, or too many, are said; the moment is then that of giving up.
    """
    end = time.monotonic() + within
    while True:
        asked = time.monotonic()
        if (stored := counted(connection, names)) >= lines:
            asked, stored = time.monotonic(), counted_exactly(connection, names)
        if stored >= lines or asked > end:
            break
        time.sleep(0.05)
    if stored != lines:
        say(f"WRONG: of {lines:,} lines {stored:,} are stored, after {within:.0f} s of waiting at most")
    return asked, stored


def empty_store(sizes: Sizes) -> None:
    """Drops all entries, so that each run begins with the same store. Helm's units are stopped, and stay so.

    The journal's position stays: nothing is read again.
    """
    units("stop", *HELM_UNITS)
    with store() as connection:
        if not sizes.keep:
            for (leaf,) in connection.execute("SELECT leaf FROM log_partitions").fetchall():
                connection.execute(f'DROP TABLE IF EXISTS "{leaf}"')
            connection.execute("DELETE FROM log_partitions")
            connection.execute("TRUNCATE log_counts_minute, log_counts_hour, ingest_requests")
        connection.execute("CHECKPOINT")


def settle(connection: psycopg.Connection[Any], within: float = 60.0) -> None:
    """Waits until nothing new has come to the store for a second."""
    end, last, since = time.monotonic() + within, -1, time.monotonic()
    while time.monotonic() < end:
        now = int(value(connection, "SELECT coalesce(max(id), 0) FROM log_entries"))
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 1:
            return
        time.sleep(0.1)


def wait_for(what: Callable[[], bool], within: float, pause: float = 0.05) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + within
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


# Units


def units(verb: str, *names: str) -> None:
    run("systemctl", "--user", verb, *names)


def cpu_seconds(unit: str, of_system: bool = False) -> float:
    whose = [] if of_system else ["--user"]
    return int(run("systemctl", *whose, "show", "--value", "-p", "CPUUsageNSec", unit)) / 1e9


def main_pid(unit: str) -> int:
    return int(run("systemctl", "--user", "show", "--value", "-p", "MainPID", unit))


def resident_mb(unit: str, which: str = "VmRSS") -> float:
    """Of a unit's main process and what it has started; VmHWM is the most that it ever was."""
    main = psutil.Process(main_pid(unit))
    total = 0
    for process in (main, *main.children(recursive=True)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        total += int(next(line for line in status.splitlines() if line.startswith(which)).split()[1])
    return total / 1024


class Printing:
    """A unit ``hivematrix-NAME`` that prints, of a name that is used once. Its end is the caller's to bring about."""

    def __init__(
        self,
        stem: str,
        lines: int = 0,
        seconds: float = 0,
        rate: float = 0,
        every: float = 0.005,
        delay: float = 0,
    ) -> None:
        self.name = f"{stem}-{secrets.token_hex(3)}"
        self.unit = f"hivematrix-{self.name}.service"
        self._report = HOME / f"{self.name}.report"
        # As services have it: what journald finds when the process is gone has at least its identifier.
        properties = ("-p", f"SyslogIdentifier=hivematrix-{self.name}", "-p", "Type=exec")
        given = (self.name, self._report, str(lines), str(seconds), str(rate), str(every), str(delay))
        run("systemd-run", "--user", "--quiet", "--collect", f"--unit={self.unit}", *properties, "/usr/bin/python3",
            "-I", "-S", BENCH / "logs_printer.py", *given)  # fmt: skip

    def done(self) -> bool:
        return self._report.exists()

    def report(self, within: float = 600.0) -> dict[str, float]:
        """``printed``, ``began`` and ``ended``, once it has printed all."""
        if not wait_for(self.done, within):
            sys.exit(f"bench: {self.unit} has not printed its lines within {within:g} s")
        found: dict[str, float] = json.loads(self._report.read_text())
        return found

    def stop(self) -> None:
        run("systemctl", "--user", "stop", self.unit, check=False)
        self._report.unlink(missing_ok=True)


# helmd


class Helmd(http.client.HTTPConnection):
    """A connection to helmd's socket, kept open."""

    def __init__(self, timeout: float = 60.0) -> None:
        super().__init__("helm", timeout=timeout)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(HELM_SOCKET))

    def get(self, path: str) -> dict[str, Any]:
        """A JSON answer; anything but 200 ends the bench."""
        self.request("GET", path)
        answer = self.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"bench: GET {path}: {answer.status} {body[:500].decode(errors='replace')}")
        found: dict[str, Any] = json.loads(body)
        return found
