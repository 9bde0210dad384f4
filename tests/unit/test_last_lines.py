"""The last lines of a unit's run, from real journal files."""

from pathlib import Path

import pytest
from systemd import _reader

from helmd.journal.lines import PrintedLine, last_lines
from helmd.journal.tail import first_after
from tests.store.journals import BOOT_A, SECOND, START, UID, append, flip_bit, flip_bit_of, line

UNIT = "hivematrix-core.service"
FIRST, SECOND_RUN = "1" * 32, "2" * 32


def printed(text: str, second: float, invocation: str = "") -> bytes:
    fields = {"_SYSTEMD_INVOCATION_ID": invocation} if invocation else {}
    return line(text, int(second * SECOND), fields=fields)


def at(second: float) -> float:
    return (START + int(second * SECOND)) / 1e6


def lines_of(directory: Path, count: int = 8, since: float = 0.0, invocation: str = "") -> list[PrintedLine]:
    return last_lines(UNIT, count, since, invocation=invocation, uid=UID, directory=directory)


def texts(found: list[PrintedLine]) -> list[str]:
    return [each.message for each in found]


def test_lines_of_a_run_and_no_others(tmp_path: Path) -> None:
    """The time alone does not show which run: the unit began at 9.9 s by systemd's word, after its first line."""
    entries = [
        printed("of the first run", 1, FIRST),
        printed("the end of the first run", 9.7, FIRST),
        printed("the beginning of the second", 9.8, SECOND_RUN),
        printed("late", 9.81, FIRST),
        printed("by a process that was gone", 9.85).replace(f"_SYSTEMD_USER_UNIT={UNIT}\n".encode(), b""),
        line("of another unit", 9_860_000, fields={"_SYSTEMD_USER_UNIT": "other.service"}),
        printed("unknown", 9.87),
        printed("the end of the second", 10, SECOND_RUN),
    ]
    append(tmp_path / "a.journal", entries)
    of_second = [
        "the beginning of the second",
        "by a process that was gone",
        "unknown",
        "the end of the second",
    ]
    assert texts(lines_of(tmp_path, since=at(9.4), invocation=SECOND_RUN)) == of_second
    assert texts(lines_of(tmp_path, 2, since=at(9.4), invocation=SECOND_RUN)) == of_second[2:]
    assert texts(lines_of(tmp_path, since=at(9.75))) == [*of_second[:1], "late", *of_second[1:]]
    assert lines_of(tmp_path, since=at(11)) == []


@pytest.mark.parametrize("bit", [36, 48, 52])
@pytest.mark.parametrize("number", [20, 29, 39])
@pytest.mark.parametrize("invocation", ["", SECOND_RUN])
def test_a_damaged_time_hides_no_line(tmp_path: Path, bit: int, number: int, invocation: str) -> None:
    """In the middle and at the end of a run, with a time that is years off in either direction."""
    entries = [printed(f"first {n}", 1 + n, FIRST) for n in range(20)]
    entries += [printed(f"second {n}", 100 + n, SECOND_RUN) for n in range(20)]
    append(tmp_path / "a.journal", entries)
    flip_bit(tmp_path / "a.journal", number, "realtime", bit)
    found = lines_of(tmp_path, 100, at(99), invocation)
    expected = [f"second {n}" for n in range(20)]
    assert [each for each in texts(found) if each != f"second {number - 20}"] == [
        each for each in expected if each != f"second {number - 20}"
    ]
    # The first line of a run has none before it by which it could be known.
    assert texts(found) == expected or number == 20
    assert all(at(99) <= each.seconds <= at(120) for each in found if each.message != f"second {number - 20}")


@pytest.mark.parametrize("bit", [7, 59])
def test_a_damaged_line_hides_no_other(tmp_path: Path, bit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of its field is not UTF-8, or there is none."""
    append(tmp_path / "a.journal", [printed(f"line {n}", 1 + n) for n in range(5)])
    flip_bit_of(tmp_path / "a.journal", b"MESSAGE=line 3", bit)
    assert texts(lines_of(tmp_path)) == ["line 0", "line 1", "line 2", "line 4"]
    open_journal = _reader._Reader
    monkeypatch.setattr(_reader, "_Reader", lambda _: open_journal(0, str(tmp_path)))
    assert first_after(UID, BOOT_A, START + int(3.5 * SECOND)) == START + 5 * SECOND
