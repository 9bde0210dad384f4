"""What the parts of `scripts/bench logs` share: how much is done, and the store and units as the bench sees them."""

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
from logs_figures import GivenUp, say

sys.path.append("/usr/share/hivematrix-helm")

from helmd.model.errors import HelmError

HOME = Path.home()
BENCH = Path(__file__).resolve().parent
RUNTIME = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")) / "hivematrix"
STORE_SOCKET = RUNTIME / "postgres-helm"
HELM_SOCKET = RUNTIME / "helm.sock"
PORT = 5004
HELM_UNITS = ("helmd", "helmd-journal")
_LONGEST_STATEMENT = 1200
_STALLED = 60.0
FAULTS = (ArithmeticError, LookupError, OSError, ValueError, HelmError, psycopg.Error)
"""What may go wrong in a part; what was measured before it is shown all the same."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done. ``keep``: the store is somebody's, so nothing of it is dropped and nothing is made up in it.

    ``patience`` is for how many seconds anything is waited for at most.
    """

    runs: int = 3
    keep: bool = False
    patience: float = 600.0
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
    patience=30.0,
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


@contextlib.contextmanager
def figure(what: str) -> Iterator[None]:
    """WHAT ends where something can't be had: that is said, and the bench goes on with what comes next."""
    try:
        yield
    except GivenUp as missing:
        say(f"WRONG: {what}: {missing}")
    except FAULTS as error:
        traceback.print_exc()
        say(f"WRONG: {what}: {error!r}")


def run(*words: str | Path, check: bool = True, within: float = 300.0) -> str:
    """What a command prints. Raises GivenUp if it fails (with CHECK) or takes too long."""
    try:
        done = _done(words, within)
    except subprocess.TimeoutExpired:
        raise GivenUp(f"{_notified(words)}: not done within {within:g} s") from None
    if check and done.returncode:
        raise GivenUp(f"{_notified(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def timed(*words: str | Path, within: float) -> float | None:
    """Seconds that a command takes, which must succeed; or fail silently, as those do that find nothing.

    None when it took too long. Raises GivenUp if it fails.
    """
    began = time.perf_counter()
    try:
        done = _done(words, within)
    except subprocess.TimeoutExpired:
        return None
    took = time.perf_counter() - began
    if done.returncode and done.stderr.strip() not in ("", "no lines"):
        raise GivenUp(f"{_notified(words)}: exit code {done.returncode}\n{done.stderr}")
    return took


def _done(words: Sequence[str | Path], within: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, errors="replace", check=False, timeout=within
    )


def _notified(words: Sequence[str | Path]) -> str:
    return " ".join(map(str, words))


# The store


def store(database: str = "helm", user: str = "postgres") -> psycopg.Connection[Any]:
    """A connection to the cluster of the log store, in autocommit, as its superuser."""
    limit = f"-c timezone=UTC -c statement_timeout={1000 * _LONGEST_STATEMENT}"
    return psycopg.connect(conninfo(database, user), autocommit=True, connect_timeout=10, options=limit)


def conninfo(database: str = "helm", user: str = "postgres") -> str:
    return f"host={STORE_SOCKET} dbname={database} user={user} options='-c timezone=UTC'"


def value(connection: psycopg.Connection[Any], query: str, *given: object) -> Any:
    """The one value that a query gives."""
    found = connection.execute(query, given, prepare=True).fetchone()
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


def all_stored(connection: psycopg.Connection[Any], names: Sequence[str], lines: int, within: float) -> float | None:
    """Waits until the store has LINES of services NAMES: when it was seen to (time.monotonic).

    Too few, or too many, are said; then there is no such moment. It is given up early when nothing comes any more.
    """
    began = moved = time.monotonic()
    last = -1
    while True:
        asked = time.monotonic()
        if (stored := counted(connection, names)) >= lines:
            asked, stored = time.monotonic(), counted_exactly(connection, names)
        if stored != last:
            last, moved = stored, asked
        if stored >= lines or asked > min(began + within, moved + _STALLED):
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
    """How many lines of services it has; none of those that were posted."""
    units = " ".join(f"_SYSTEMD_USER_UNIT=hivematrix-{name}.service" for name in names)
    return run("sh", "-c", f"journalctl --user -q -o cat _TRANSPORT=stdout {units} | wc -l").strip()


def _gaps(connection: psycopg.Connection[Any]) -> str:
    """What Helm itself tells of lines that it did not get."""
    found = connection.execute(
        "SELECT message FROM log_entries WHERE service_name = 'helm' AND context ? 'gap'"
        " AND timestamp > now() - interval '15 minutes' ORDER BY timestamp DESC, id DESC LIMIT 3"
    )
    return "".join(f"; Helm tells: {message}" for (message,) in found)


def empty_store(sizes: Sizes) -> None:
    """Drops all entries, so that each run begins with the same store. Helm's units are stopped, and stay so.

    The journal's position stays: nothing is read again.
    """
    units("stop", *HELM_UNITS)
    with store() as connection:
        # PostgreSQL finishes an index that helmd's upkeep had begun.
        upkeep = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'helm upkeep'"
        if not wait_for(lambda: value(connection, upkeep) == 0, sizes.patience):
            raise TimeoutError("helmd's upkeep has not ended")
        if not sizes.keep:
            for (leaf,) in connection.execute("SELECT leaf FROM log_partitions").fetchall():
                connection.execute(f'DROP TABLE IF EXISTS "{leaf}"')
            connection.execute("DELETE FROM log_partitions")
            connection.execute("TRUNCATE log_counts_minute, log_counts_hour, ingest_requests")
        connection.execute("CHECKPOINT")


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
    """Of a unit's main process and what it has started; VmHWM is the most that it ever was. Raises GivenUp."""
    total = 0
    try:
        main = psutil.Process(main_pid(unit))
        for process in (main, *main.children(recursive=True)):
            # One that has just ended has none, or is gone.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(which))
    except psutil.Error as error:
        raise GivenUp(f"{unit}'s memory: {error}") from None
    if not total:
        raise GivenUp(f"{unit}'s memory: it does not run")
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
            raise GivenUp(f"{self.unit} has not printed its lines within {within:g} s")
        found: dict[str, float] = json.loads(self._report.read_text())
        return found

    def stop(self) -> None:
        run("systemctl", "--user", "stop", self.unit, check=False)
        self._report.unlink(missing_ok=True)


def settle(connection: psycopg.Connection[Any], within: float) -> None:
    """Waits until the store has all that the journal held: what is printed now comes last. Raises GivenUp.

    It does not wait for silence: where the store is somebody's there is always a service that prints.
    """
    last = Printing("settle", lines=1)
    try:
        if not wait_for(lambda: counted_exactly(connection, [last.name]) > 0, within):
            notified = f"the journal has {_in_journal([last.name])} of it{_gaps(connection)}"
            raise GivenUp(f"a line that was printed is not stored after {within:g} s; {notified}")
    finally:
        last.stop()


# helmd


class Helmd(http.client.HTTPConnection):
    """A connection to helmd's socket, kept open, and opened anew after a failure."""

    def __init__(self, timeout: float = 60.0) -> None:
        super().__init__("helm", timeout=timeout)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(HELM_SOCKET))

    def get(self, path: str) -> dict[str, Any]:
        """A JSON answer. Raises GivenUp for anything but 200, and when there is none in time."""
        try:
            self.request("GET", path)
            answer = self.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise GivenUp(f"GET {path}: {error!r}") from None
        if answer.status != 200:
            raise GivenUp(f"GET {path}: {answer.status} {body[:500].decode(errors='replace')}")
        found: dict[str, Any] = json.loads(body)
        return found
