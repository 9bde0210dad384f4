"""No line is lost or doubled, and no service notices, whatever of Helm is killed or away."""

import json
import time
from collections import Counter
from typing import Any

from tests.system import printing
from tests.system.booted import Sandbox, until

LINES = 60_000
SECONDS = 60.0
KILLS = 10
OUTAGE = 30.0
CATCH_UP = 120.0
"""How long the store may take to have all lines on a busy machine. On a quiet one it takes a second or two."""


def health(box: Sandbox) -> dict[str, Any]:
    done = box("curl", "--silent", "--max-time", "10", "http://127.0.0.1:5004/health")
    found: dict[str, Any] = json.loads(done.out)
    return found


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def finished(printer: printing.Printer, began: float) -> None:
    """Waits for the last line, and then for the store; the lines must be there exactly once."""
    sleep_until(began + SECONDS)
    printed = time.monotonic()
    until(lambda: printer.count() >= LINES, CATCH_UP, pause=0.5)
    print(f"{LINES:,} lines stored {time.monotonic() - printed:.1f} s after the last was due")
    printing.compare(printer.stored(), printing.lines(LINES))
    # Whatever would be stored a second time is stored by now.
    time.sleep(3)
    printing.compare(printer.stored(), printing.lines(LINES))


def test_kill_9_of_helm_loses_and_doubles_nothing(box: Sandbox) -> None:
    """1,000 lines/s for a minute; helmd and helmd-journal are killed ten times each, at random moments."""
    printer = printing.register(box, LINES)
    box.helmctl("start", printer.name)
    began = time.monotonic()
    before = printing.lives(box, printer.name)
    restarts = {unit: printing.restarts(box, unit) for unit in ("helmd", "helmd-journal")}
    chance = printing.chance()
    kills = sorted((chance.uniform(1, SECONDS - 2), unit) for unit in restarts for _ in range(KILLS))
    killed: dict[str, list[int]] = {unit: [] for unit in restarts}
    for moment, unit in kills:
        sleep_until(began + moment)
        killed[unit].append(printing.kill_main(box, unit))
    print(f"killed within {time.monotonic() - began:.1f} s: {killed}")
    finished(printer, began)
    assert printing.lives(box, printer.name) == before, "a service has noticed"
    for unit, pids in killed.items():
        assert len(set(pids)) == KILLS, f"{unit}: {pids}"
        assert printing.restarts(box, unit) - restarts[unit] == KILLS, unit
    until(lambda: box("systemctl", "--user", "is-active", *killed, check=False).out.split() == ["active", "active"], 60)


def test_postgresql_away_loses_and_doubles_nothing(box: Sandbox) -> None:
    """The log store's PostgreSQL is stopped for half of the minute, and later killed: helmd says so and stays."""
    printer, other = printing.register(box, LINES), printing.register(box, 1)
    until(lambda: health(box)["checks"]["database"]["status"] == "healthy", 60)
    box.helmctl("start", printer.name)
    began = time.monotonic()
    before = printing.lives(box, printer.name)
    helm = {unit: printing.main_pid(box, unit) for unit in ("helmd", "helmd-journal")}
    sleep_until(began + 8)
    box("systemctl", "--user", "stop", "helmd-postgres")
    stopped = time.monotonic()
    try:
        seen = until(lambda: (found := health(box))["checks"]["database"]["status"] == "unhealthy" and found, 20)
        assert seen["status"] == "degraded" and seen["checks"]["systemd"]["status"] == "healthy", seen
        took = [
            box.helmctl("start", other.name).seconds,
            box.helmctl("status", other.name).seconds,
            box.helmctl("stop", other.name).seconds,
        ]
        assert box.helmctl("status", check=False).code == 3, "one service was just stopped"
        print("start, status, stop without the store: " + ", ".join(f"{seconds:.2f} s" for seconds in took))
        box.helmctl("start", other.name)
        assert box.helmctl("logs", "-n", "5", printer.name).out.count("line ") == 5
        sleep_until(stopped + OUTAGE)
        assert health(box)["status"] == "degraded"
    finally:
        box("systemctl", "--user", "start", "helmd-postgres")
    sleep_until(began + 48)
    killed = printing.kill_main(box, "helmd-postgres")
    finished(printer, began)
    assert killed != printing.main_pid(box, "helmd-postgres")
    assert printing.lives(box, printer.name) == before, "a service has noticed"
    assert {unit: printing.main_pid(box, unit) for unit in helm} == helm, "Helm's daemons wait for their store"
    until(lambda: other.stored() == Counter({"line 1": 2}), 60)
    until(lambda: {health(box)["checks"][name]["status"] for name in ("database", "journal")} == {"healthy"}, 60)
