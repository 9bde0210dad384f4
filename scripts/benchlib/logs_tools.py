"""Code shared by the parts of `scripts/bench logs`: sizes, access to the store, units and helmd."""

import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from logs_figures import MeasurementError, say

sys.path.append("/usr/share/hivematrix-helm")

from helmd.model.errors import HelmError

HOME = Path.home()
BENCH = Path(__file__).resolve().parent
RUNTIME = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")) / "hivematrix"
STORE_SOCKET = RUNTIME / "postgres-helm"
HELM_SOCKET = RUNTIME / "helm.sock"
PORT = 5004
HELM_UNITS = ("helmd", "helmd-journal")
_STATEMENT_TIMEOUT = 1200
_STALL_TIMEOUT = 60.0
FAULTS = (ArithmeticError, LookupError, OSError, ValueError, HelmError, psycopg.Error)
"""Expected errors of a part; earlier figures are shown anyway."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The amount of work. ``keep``: no entry of the store is dropped, and none are generated in it.

    ``timeout`` is the maximum time in seconds to wait for any condition.
    """

    runs: int = 3
    keep: bool = False
    timeout: float = 600.0
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
    today: int = 1_000_000
    days: int = 90
    samples: int = 100
    pages: int = 1000


SHORT = Sizes(
    runs=1,
    timeout=30.0,
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
    today=2_000,
    days=4,
    samples=3,
    pages=10,
)
"""Everything once with little data, to check the benchmark itself."""


@contextlib.contextmanager
def figure(what: str) -> Iterator[None]:
    """Report an error while measuring WHAT, and continue after it."""
    try:
        yield
    except MeasurementError as missing:
        say(f"WRONG: {what}: {missing}")
    except FAULTS as error:
        traceback.print_exc()
        say(f"WRONG: {what}: {error!r}")


def run(*words: str | Path, check: bool = True, within: float = 300.0) -> str:
    """Run a command and return its output. Raises MeasurementError if it fails (with CHECK) or times out."""
    try:
        done = _run(words, within)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{_command_line(words)}: not done within {within:g} s") from None
    if check and done.returncode:
        raise MeasurementError(f"{_command_line(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def timed(*words: str | Path, within: float) -> float | None:
    """Return the duration of a command in seconds. It must succeed, or fail without output (no result).

    Returns None if it times out. Raises MeasurementError if it fails.
    """
    began = time.perf_counter()
    try:
        done = _run(words, within)
    except subprocess.TimeoutExpired:
        return None
    took = time.perf_counter() - began
    if done.returncode and done.stderr.strip() not in ("", "no lines"):
        raise MeasurementError(f"{_command_line(words)}: exit code {done.returncode}\n{done.stderr}")
    return took


def _run(words: Sequence[str | Path], within: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, errors="replace", check=False, timeout=within
    )


def _command_line(words: Sequence[str | Path]) -> str:
    return " ".join(map(str, words))


# The store


def store(database: str = "helm", user: str = "postgres") -> psycopg.Connection[Any]:
    """Connect to the cluster of the log store, in autocommit mode, by default as superuser."""
    limit = f"-c timezone=UTC -c statement_timeout={1000 * _STATEMENT_TIMEOUT}"
    return psycopg.connect(conninfo(database, user), autocommit=True, connect_timeout=10, options=limit)


def conninfo(database: str = "helm", user: str = "postgres") -> str:
    return f"host={STORE_SOCKET} dbname={database} user={user} options='-c timezone=UTC'"


def value(connection: psycopg.Connection[Any], query: str, *given: object) -> Any:
    """Return the single value of a query, or None."""
    found = connection.execute(query, given, prepare=True).fetchone()
    return None if found is None else found[0]


def counted(connection: psycopg.Connection[Any], names: Sequence[str]) -> int:
    """Return the number of stored entries of services by the rollups, which are committed with the rows."""
    return int(
        value(
            connection,
            "SELECT coalesce(sum(entries), 0) FROM log_counts_minute WHERE service_name = ANY(%s)",
            list(names),
        )
    )


def counted_exactly(connection: psycopg.Connection[Any], names: Sequence[str]) -> int:
    """Return the number of stored entries of services, without systemd's messages about their units."""
    return int(
        value(
            connection,
            "SELECT count(*) FROM log_entries WHERE service_name = ANY(%s) AND source IN ('journal', 'http')",
            list(names),
        )
    )


def all_stored(connection: psycopg.Connection[Any], names: Sequence[str], lines: int, within: float) -> float | None:
    """Wait until the store has LINES of services NAMES; return the time (time.monotonic).

    Returns None, with a message, if there are too few or too many lines. Ends early if no more lines are stored.
    """
    began = moved = time.monotonic()
    last = -1
    while True:
        asked = time.monotonic()
        if (stored := counted(connection, names)) >= lines:
            asked, stored = time.monotonic(), counted_exactly(connection, names)
        if stored != last:
            last, moved = stored, asked
        if stored >= lines or asked > min(began + within, moved + _STALL_TIMEOUT):
            break
        time.sleep(0.05)
    if stored == lines:
        return asked
    stored = counted_exactly(connection, names)
    say(
        f"WRONG: of {lines:,} lines {stored:,} are stored after {asked - began:.0f} s of waiting, the last"
        f" {asked - moved:.0f} s before; the journal has {_in_journal(names)} of them{_gaps(connection)}"
    )
    return None


def _in_journal(names: Sequence[str]) -> str:
    """Return the number of lines of services in the journal, as text."""
    units = " ".join(f"_SYSTEMD_USER_UNIT=hivematrix-{name}.service" for name in names)
    return run("sh", "-c", f"journalctl --user -q -o cat _TRANSPORT=stdout {units} | wc -l").strip()


def _gaps(connection: psycopg.Connection[Any]) -> str:
    """Return Helm's recent messages about gaps."""
    found = connection.execute(
        "SELECT message FROM log_entries WHERE service_name = 'helm' AND context ? 'gap'"
        " AND timestamp > now() - interval '15 minutes' ORDER BY timestamp DESC, id DESC LIMIT 3"
    )
    return "".join(f"; Helm reports: {message}" for (message,) in found)


def empty_store(sizes: Sizes) -> None:
    """Drop all entries, so that each run starts with an empty store. Stops Helm's units.

    The stored journal position is kept, so nothing is read again.
    """
    units("stop", *HELM_UNITS)
    with store() as connection:
        # PostgreSQL completes an index build of helmd's maintenance.
        maintenance = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'helm maintenance'"
        if not wait_for(lambda: value(connection, maintenance) == 0, sizes.timeout):
            raise TimeoutError("helmd's maintenance has not ended")
        if not sizes.keep:
            for (leaf,) in connection.execute("SELECT leaf FROM log_partitions").fetchall():
                connection.execute(f'DROP TABLE IF EXISTS "{leaf}"')
            connection.execute("DELETE FROM log_partitions")
            connection.execute("TRUNCATE log_counts_minute, log_counts_hour, ingest_requests")
        connection.execute("CHECKPOINT")


def wait_for(what: Callable[[], bool], within: float, pause: float = 0.05) -> bool:
    """Wait for a condition; return whether it became true within WITHIN seconds."""
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
    """Return the memory of a unit's main process and children in MiB; VmHWM is the peak. Raises MeasurementError."""
    total = 0
    try:
        main = psutil.Process(main_pid(unit))
        for process in (main, *main.children(recursive=True)):
            # A process that has just ended has no such file or fields.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(which))
    except psutil.Error as error:
        raise MeasurementError(f"{unit}'s memory: {error}") from None
    if not total:
        raise MeasurementError(f"{unit}'s memory: it does not run")
    return total / 1024


class Printer:
    """A unit ``hivematrix-NAME`` that prints lines, with a unique name. The caller must call `stop`."""

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
        # As for services: if the process has ended, journald can still assign the identifier.
        properties = ("-p", f"SyslogIdentifier=hivematrix-{self.name}", "-p", "Type=exec")
        given = (self.name, self._report, str(lines), str(seconds), str(rate), str(every), str(delay))
        run("systemd-run", "--user", "--quiet", "--collect", f"--unit={self.unit}", *properties, "/usr/bin/python3",
            "-I", "-S", BENCH / "logs_printer.py", *given)  # fmt: skip

    def done(self) -> bool:
        return self._report.exists()

    def report(self, within: float = 600.0) -> dict[str, float]:
        """Wait until all lines are printed; return ``printed``, ``began`` and ``ended``."""
        if not wait_for(self.done, within):
            raise MeasurementError(f"{self.unit} did not print its lines within {within:g} s")
        found: dict[str, float] = json.loads(self._report.read_text())
        return found

    def stop(self) -> None:
        run("systemctl", "--user", "stop", self.unit, check=False)
        self._report.unlink(missing_ok=True)


def settle(connection: psycopg.Connection[Any], within: float) -> None:
    """Wait until all earlier lines are stored, by printing one more line. Raises MeasurementError.

    It does not wait until no more lines arrive, since other services may print all the time.
    """
    last = Printer("settle", lines=1)
    try:
        if not wait_for(lambda: counted_exactly(connection, [last.name]) > 0, within):
            details = f"the journal has {_in_journal([last.name])} of it{_gaps(connection)}"
            raise MeasurementError(f"a printed line is not stored after {within:g} s; {details}")
    finally:
        last.stop()


# helmd


class Helmd(http.client.HTTPConnection):
    """A persistent connection to helmd's socket, reopened after a failure."""

    def __init__(self, timeout: float = 60.0) -> None:
        super().__init__("helm", timeout=timeout)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(HELM_SOCKET))

    def get(self, path: str) -> dict[str, Any]:
        """Return a JSON response. Raises MeasurementError for a status other than 200, and on timeout."""
        try:
            self.request("GET", path)
            response = self.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise MeasurementError(f"GET {path}: {error!r}") from None
        if response.status != 200:
            raise MeasurementError(f"GET {path}: {response.status} {body[:500].decode(errors='replace')}")
        found: dict[str, Any] = json.loads(body)
        return found
