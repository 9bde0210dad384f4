"""Single bits of a journal file flipped at random: every line that can still be read is read once, ordinary reading
goes on, and no line gets a time that its neighbours contradict.
"""

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest

from helmd.journal.files import JournalFile
from helmd.model.logs.parsing.journal_fields import JournalEntry
from helmd.model.logs.parsing.position import Gap, Missing
from tests.store.journals import BOOT_A, FIELDS, SECOND, START, append, flip_bit, line
from tests.store.test_journal_reader import Positions, reading

ALL, STORED = 12_000, 4_000
FLIPS = 200
_TEXT = re.compile(r"(line \d+) ([0-9a-f]{8})\Z")


@pytest.fixture(autouse=True)
def unconfirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first check at the end counts; nothing else writes into these files."""
    monkeypatch.setattr("helmd.journal.comparison._CONFIRM", False)


def text(n: int) -> str:
    """Return what shows by itself that no bit of it was flipped."""
    return f"line {n} {crc32(f'line {n}'.encode()):08x}"


def is_intact(message: str) -> bool:
    found = _TEXT.match(message)
    return found is not None and f"{crc32(found[1].encode()):08x}" == found[2]


def written(first: int, last: int) -> list[bytes]:
    return [line(text(n), SECOND + n * 1000) for n in range(first, last + 1)]


def used(file: Path) -> int:
    opened = JournalFile(file)
    end = int.from_bytes(os.pread(opened.descriptor, 8, 136), "little")
    opened.close()
    return end


def flip(file: Path, chosen: random.Random, begin: int, end: int, times: int) -> None:
    with file.open("r+b") as opened:
        for _ in range(times):
            at = chosen.randrange(begin, end)
            opened.seek(at)
            byte = opened.read(1)[0]
            opened.seek(at)
            opened.write(bytes([byte ^ 1 << chosen.randrange(8)]))


def unfiltered(file: Path) -> set[str]:
    command = ["journalctl", "--file", str(file), "-a", "-o", "cat", "--output-fields=MESSAGE"]
    printed = subprocess.run(command, check=False, capture_output=True).stdout.decode("utf-8", "replace")
    return {message for message in printed.split("\n") if is_intact(message)}


def drain(directory: Path, positions: Positions, most: int = 100) -> tuple[list[JournalEntry], list[Gap]]:
    entries: list[JournalEntry] = []
    gaps: list[Gap] = []
    with reading(directory, positions) as reader:
        while True:
            batch = reader.read(most, 1 << 20)
            entries += batch.entries
            gaps += batch.gaps
            if batch.position is not None:
                positions[BOOT_A] = batch.position
            if batch.at_end:
                return entries, gaps


def texts(entries: list[JournalEntry]) -> list[str]:
    found = (entry.fields.get("MESSAGE", b"") for entry in entries)
    return [
        (message if isinstance(message, bytes) else b"\n".join(message)).decode("utf-8", "replace") for message in found
    ]


@pytest.fixture(scope="module")
def half_read(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Positions]:
    """Return a file of which the first STORED lines were read, and where the others begin. To be copied."""
    file = tmp_path_factory.mktemp("half-read") / "a.journal"
    append(file, written(1, STORED))
    positions: Positions = {}
    drain(file.parent, positions, 1000)
    begin = used(file)
    append(file, written(STORED + 1, ALL))
    return file, begin, positions


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with what `test_one_damaged_field_ends_nothing` begins with. To be copied."""
    directory = tmp_path_factory.mktemp("two-files")
    append(directory / "a.journal", written(1, 500))
    append(directory / "b.journal", written(501, 520))
    return directory


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_every_readable_line_is_read_once(
    tmp_path: Path, half_read: tuple[Path, int, Positions], seed: int, followed: bool
) -> None:
    file, begin, positions = tmp_path / "a.journal", half_read[1], dict(half_read[2])
    shutil.copy(half_read[0], file)
    flip(file, random.Random(seed), begin, used(file), FLIPS)
    new = {text(n) for n in range(STORED + 1, ALL + 1)}
    readable = unfiltered(file) & new
    if followed:
        append(tmp_path / "b.journal", written(ALL + 1, ALL + 50))
    entries, gaps = drain(tmp_path, positions)
    more, more_gaps = drain(tmp_path, positions)
    assert (more, more_gaps) == ([], [])
    if not followed:
        append(tmp_path / "b.journal", written(ALL + 1, ALL + 50))
        more, more_gaps = drain(tmp_path, positions)
    entries, gaps = entries + more, gaps + more_gaps
    intact = [message for message in texts(entries) if is_intact(message)]
    assert {message: times for message, times in Counter(intact).items() if times > 1} == {}
    assert readable - set(intact) == set()
    assert {text(n) for n in range(ALL + 1, ALL + 51)} <= set(intact)
    assert set(intact) <= new | {text(n) for n in range(ALL + 1, ALL + 51)}
    missing = ALL - STORED + 50 - len(entries)
    assert {gap.why for gap in gaps} <= {Missing.UNREADABLE}
    assert missing <= sum(gap.at_most or 0 for gap in gaps) <= missing + FLIPS
    for entry in entries:
        message = texts([entry])[0]
        if is_intact(message):
            assert abs(entry.realtime - (START + SECOND + int(message.split()[1]) * 1000)) < 5 * SECOND


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("number", [0, 1, 250, 251, 498, 499])
@pytest.mark.parametrize("bit", [12, 22, 36, 48])
@pytest.mark.parametrize("field", FIELDS)
def test_one_damaged_field_ends_nothing(
    tmp_path: Path, two_files: Path, field: str, bit: int, number: int, whole: bool
) -> None:
    """In the first, the last and other entries of a file, with the reader stopped behind each entry or never."""
    shutil.copytree(two_files, tmp_path, dirs_exist_ok=True)
    flip_bit(tmp_path / "a.journal", number, field, bit)
    positions: Positions = {}
    found: list[JournalEntry] = []
    if whole:
        found = drain(tmp_path, positions, 1000)[0]
    else:
        near = max(0, number - 2)
        for most in (near, 1, 1, 1, 1, 1, 1000):
            with reading(tmp_path, positions) as reader:
                batch = reader.read(most, 1 << 30)
                found += batch.entries
                if batch.position is not None:
                    positions[BOOT_A] = batch.position
        found += drain(tmp_path, positions)[0]
    append(tmp_path / "b.journal", written(521, 530))
    found += drain(tmp_path, positions)[0]
    assert sorted(texts(found)) == sorted(text(n) for n in range(1, 531))
    for entry in found:
        assert abs(entry.realtime - (START + SECOND + int(texts([entry])[0].split()[1]) * 1000)) < 5 * SECOND
