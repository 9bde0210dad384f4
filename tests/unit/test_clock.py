"""Steps of the wall clock within a boot."""

from collections.abc import Sequence

import pytest

from helmd.model.logs.parsing.clock_steps import clock_steps
from helmd.model.logs.parsing.entry_times import STEP
from helmd.model.logs.parsing.journal_fields import JournalEntry

START = 1_700_000_000_000_000
BOOT = "b" * 32
SECOND = 1_000_000


def entries(*offsets: int) -> list[JournalEntry]:
    """Return one a second; OFFSETS are how far the wall clock is off then, in microseconds."""
    return [
        JournalEntry({}, "", BOOT, n * SECOND, START + n * SECOND + offset) for n, offset in enumerate(offsets)
    ]  # fmt: skip


def steps(offset: int | None, *offsets: int) -> Sequence[object]:
    return [(row.context or {})["seconds"] for row in clock_steps(offset, entries(*offsets), "box")]


@pytest.mark.parametrize("offsets", [(), (0, 0, 0), (0, STEP - 1, 0), (0, 900_000, 1_800_000, 2_700_000)])
def test_a_clock_that_is_kept_in_time_makes_no_step(offsets: tuple[int, ...]) -> None:
    assert steps(None, *offsets) == []
    assert steps(START, *offsets) == []


def test_steps_forward_and_back() -> None:
    assert steps(START, 0, 3600 * SECOND, 3600 * SECOND) == [3600.0]
    assert steps(START, 0, 0, -7 * SECOND) == [-7.0]
    assert steps(None, 0, 60 * SECOND, 0) == [60.0, -60.0]
    assert steps(START, 0, 60 * SECOND, 0) == [60.0, -60.0]


def test_a_step_between_two_reads() -> None:
    assert steps(START - 5 * SECOND, 0, 0) == [5.0]
    assert steps(None, 0, 0) == []


def test_what_is_said_of_a_step() -> None:
    (forward,) = clock_steps(START, entries(10 * SECOND), "box")
    assert forward.message == (
        "The clock went forward by 10.0 s: it was set, or the machine slept; no line has a time between"
        " 2023-11-14T22:13:20+00:00 and 2023-11-14T22:13:30+00:00."
    )
    (back,) = clock_steps(START, entries(-10 * SECOND), "box")
    assert back.message == (
        "The clock was set back by 10.0 s: lines of before and of after it have times between"
        " 2023-11-14T22:13:10+00:00 and 2023-11-14T22:13:20+00:00."
    )
    for row in (forward, back):
        assert (row.service_name, row.level, row.source, row.hostname, row.boot_id) == (
            "helm", "WARNING", "helm", "box", BOOT,
        )  # fmt: skip
        assert (row.context or {})["gap"] == "clock"
