"""Wording of durations and numbers in ``helmctl why``, and what a service that fails has printed."""

import threading
from dataclasses import replace

import pytest

from helmd.journal.lines import PrintedLine
from helmd.model.counted import counted
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.suite.service import Service
from helmd.model.units.status import Observed
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.diagnostics.failures import FailureReader, failure_of
from helmd.operations.diagnostics.why import cause_line, since
from tests.waiting import WITHIN


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "just now"),
        (0.4, "just now"),
        (1, "for 1 second"),
        (59.9, "for 59 seconds"),
        (60, "for 1 minute"),
        (7200, "for 2 hours"),
        (86400, "for 1 day"),
        (1001 * 86400, "for 1,001 days"),
    ],
)
def test_since(seconds: float, words: str) -> None:
    assert since(1_000_000_000 - seconds, 1_000_000_000) == words


def test_counted() -> None:
    assert [counted(count, "unit") for count in (0, 1, 2, 1000)] == ["0 units", "1 unit", "2 units", "1,000 units"]


def test_the_number_of_faults() -> None:
    fault = Fault("helm.toml", 1, "", "is not valid TOML")
    assert str(ConfigurationError([fault])).startswith("1 fault in the configuration")
    assert str(ConfigurationError([fault, fault])).startswith("2 faults in the configuration")


GUNICORN = [
    "Traceback (most recent call last):",
    '  File "run.py", line 3',
    "ModuleNotFoundError: No module named 'x'",
    "[ERROR] Worker (pid:7) exited with code 3",
    "Shutting down: Master",
]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (GUNICORN, "ModuleNotFoundError: No module named 'x'"),
        (["ERROR one", "INFO fine", "  FATAL: two ", "bye"], "FATAL: two"),
        (["Traceback (most recent call last):", '  File "run.py", line 3'], ""),
        (["all is as it was"], ""),
        ([], ""),
    ],
)
def test_the_line_that_says_why(lines: list[str], found: str) -> None:
    assert cause_line(lines) == found


FAILED = UnitFacts("hivematrix-core.service", "loaded", "failed", result="exit-code", changed_at=5000.0, restarts=5)


def printed(*lines: str) -> list[PrintedLine]:
    return [PrintedLine(4000.0 + number, line) for number, line in enumerate(lines)]


def test_what_a_failed_service_printed() -> None:
    found = failure_of(FAILED, printed("connecting", "ERROR: no such table", "bye"), 5001.0)
    assert found.line == "ERROR: no such table" and [line for _, line in found.lines][-1] == "bye"
    assert found.since is not None and (found.since.timestamp(), found.restarts) == (5000.0, 5)
    assert failure_of(FAILED, printed("a", "the end", " "), 5001.0).line == "the end"
    assert failure_of(FAILED, [], 5001.0).line == ""
    runs = replace(FAILED, active_state="active", restarts=0, active_since=4000.0)
    unhealthy = failure_of(runs, printed("GET /health 200"), 5001.0)
    assert (unhealthy.line, unhealthy.since) == ("", None), "no line of it says why"


async def test_many_who_ask_share_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("_WAIT_SECONDS", "_FRESH_SECONDS"):
        monkeypatch.setattr(f"helmd.operations.diagnostics.failures.{limit}", WITHIN)
    read: list[UnitFacts] = []
    seen = {"core": Observed("core", Service("core"), FAILED)}

    def lines_of(facts: UnitFacts) -> list[PrintedLine]:
        read.append(facts)
        return printed(f"ERROR: run {len(read)}")

    reader = FailureReader(seen.get, lines_of)
    found = [await reader.of("core") for _ in range(3)]
    assert [each.line for each in found if each] == ["ERROR: run 1"] * 3
    seen["core"] = replace(seen["core"], facts=replace(FAILED, invocation="2" * 32))
    again = await reader.of("core")
    assert again is not None and again.line == "ERROR: run 2" and len(read) == 2
    assert await reader.of("nosuch") is None
    external = Service("core", type="external", url="https://desk.example.org")
    seen["core"] = Observed("core", external, FAILED)
    assert await reader.of("core") is None


async def test_a_journal_that_hangs_holds_no_page_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.operations.diagnostics.failures._WAIT_SECONDS", 0.05)
    released = threading.Event()

    def hangs(facts: UnitFacts) -> list[PrintedLine]:
        released.wait(30)
        return []

    reader = FailureReader({"core": Observed("core", Service("core"), FAILED)}.get, hangs)
    try:
        assert await reader.of("core") is None
    finally:
        released.set()
