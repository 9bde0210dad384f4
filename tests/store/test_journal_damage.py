"""Damage in the middle of a journal file: what can be read behind it is read, once, and the rest is counted."""

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from helmd.journal.damage import truncated_files
from helmd.journal.files import JournalFile
from helmd.journal.reader import JournalReader
from helmd.model.logs.parsing.position import Gap, Missing
from tests.store.journals import BOOT_A, BOOT_B, SECOND, START, append, damage, flip_bit, flip_bit_of, line, lines
from tests.store.test_journal_reader import Positions, drain, names, read, reading

ALL, STORED = 20_000, 10_000
BLOCK = 4096


@pytest.fixture(autouse=True)
def unconfirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first check at the end counts; nothing else writes into these files."""
    monkeypatch.setattr("helmd.journal.comparison._CONFIRM", False)


def overwrite(file: Path, shares: tuple[float, ...], content: Callable[[int], bytes]) -> None:
    """Write CONTENT over one block at each of SHARES of a file's size."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        for share in shares:
            opened.seek(int(size * share) // BLOCK * BLOCK)
            opened.write(content(BLOCK))


def used(file: Path) -> int:
    """Return bytes up to the last object: what is behind is allocated in advance, and damage there harms nothing."""
    opened = JournalFile(file)
    end = int.from_bytes(os.pread(opened.descriptor, 8, 136), "little")
    opened.close()
    return end


def unfiltered(*files: Path) -> list[str]:
    """Return the texts that journalctl gives of files read without a match; entries that lost theirs are left out."""
    found = []
    for file in files:
        command = ["journalctl", "--file", str(file), "-o", "cat", "--output-fields=MESSAGE"]
        found += subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    return [text for text in found if text]


def zeros(size: int) -> bytes:
    return bytes(size)


def garbage(size: int) -> bytes:
    return random.Random(4711).randbytes(size)


DAMAGES = [
    pytest.param((0.80,), zeros, id="zeros"),
    pytest.param((0.60, 0.75, 0.85, 0.95), garbage, id="garbage"),
    pytest.param((0.60, 0.75, 0.85, 0.95), zeros, id="zeros-four-times"),
    pytest.param((0.90, 0.91, 0.92), garbage, id="garbage-together"),
]


def prepared(directory: Path, most: int = STORED) -> tuple[Path, Positions]:
    """Return a file of ALL lines cut to its used size, of which the first MOST have been read."""
    file = directory / "a.journal"
    append(file, lines(1, ALL))
    os.truncate(file, file.stat().st_size)
    positions: Positions = {}
    if most:
        with reading(directory, positions) as reader:
            batch = reader.read(most, 1 << 30)
            assert batch.position is not None and len(batch.entries) == most
            positions[BOOT_A] = batch.position
    return file, positions


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize(("shares", "content"), DAMAGES)
def test_lines_behind_the_damage_are_read_and_the_rest_is_counted(
    tmp_path: Path, shares: tuple[float, ...], content: Callable[[int], bytes], followed: bool
) -> None:
    file, positions = prepared(tmp_path)
    share = used(file) / file.stat().st_size
    overwrite(file, tuple(each * share for each in shares), content)
    readable = [text for text in unfiltered(file) if text.startswith("1-") and int(text[2:]) > STORED]
    assert STORED - 1500 < len(readable) < STORED
    following = names(ALL + 1, ALL + 20)
    if followed:
        append(tmp_path / "b.journal", lines(ALL + 1, ALL + 20))
    texts, gaps = read(tmp_path, positions)
    texts += read(tmp_path, positions)[0]
    if not followed:
        append(tmp_path / "b.journal", lines(ALL + 1, ALL + 20))
        later, gaps_later = read(tmp_path, positions)
        texts, gaps = texts + later, gaps + gaps_later
    assert len(set(texts)) == len(texts)
    assert set(texts) >= {*readable, *following}
    missing = STORED + 20 - len(texts)
    assert {gap.why for gap in gaps} == {Missing.UNREADABLE}
    assert missing <= sum(gap.at_most or 0 for gap in gaps) <= missing + 60
    assert read(tmp_path, positions) == ([], [])


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("content", [zeros, garbage])
@pytest.mark.parametrize("share", [0.85, 0.97])
def test_a_lost_end_of_a_file_is_counted(
    tmp_path: Path, share: float, content: Callable[[int], bytes], followed: bool
) -> None:
    """All from some place on is gone, the entry arrays with it, but the header says how many entries there were."""
    file, positions = prepared(tmp_path)
    size, begin = file.stat().st_size, int(used(file) * share) // BLOCK * BLOCK
    with file.open("r+b") as opened:
        opened.seek(begin)
        opened.write(content(size - begin))
    if followed:
        append(tmp_path / "b.journal", lines(ALL + 1, ALL + 20))
    texts, gaps = read(tmp_path, positions)
    if not followed:
        append(tmp_path / "b.journal", lines(ALL + 1, ALL + 20))
        later, gaps_later = read(tmp_path, positions)
        texts, gaps = texts + later, gaps + gaps_later
    assert len(set(texts)) == len(texts) and set(texts) >= set(names(ALL + 1, ALL + 20))
    missing = STORED + 20 - len(texts)
    assert missing > 100 and missing <= sum(gap.at_most or 0 for gap in gaps) <= missing + 60
    assert read(tmp_path, positions) == ([], [])


@pytest.mark.parametrize(("shares", "content"), DAMAGES)
def test_reading_may_stop_and_go_on_anywhere_in_what_is_recovered(
    tmp_path: Path, shares: tuple[float, ...], content: Callable[[int], bytes]
) -> None:
    file, positions = prepared(tmp_path)
    share = used(file) / file.stat().st_size
    overwrite(file, tuple(each * share for each in shares), content)
    append(tmp_path / "b.journal", lines(ALL + 1, ALL + 20))
    whole, whole_gaps = read(tmp_path, dict(positions))
    texts: list[str] = []
    gaps: list[Gap] = []
    while positions[BOOT_A].monotonic < SECOND + (ALL + 20) * 1000:
        with reading(tmp_path, positions) as reader:
            for _ in range(40):
                batch = reader.read(37, 1 << 20)
                texts += [bytes(entry.fields["MESSAGE"]).decode() for entry in batch.entries]  # type: ignore[arg-type]
                gaps += batch.gaps
                assert batch.position is not None
                positions[BOOT_A] = batch.position
    assert len(set(texts)) == len(texts)
    assert set(texts) == set(whole)
    counted = sum(gap.at_most or 0 for gap in whole_gaps)
    assert counted <= sum(gap.at_most or 0 for gap in gaps) <= counted + 10


def test_other_accounts_and_boots_in_the_same_file(tmp_path: Path) -> None:
    """As a system account has it: its lines are among everybody's in the system journal."""
    file = tmp_path / "a.journal"
    mixed: list[bytes] = []
    for n, own in enumerate(lines(1, 6000)):
        mixed += [own, line(f"other {n}", SECOND + n * 1000 + 1500, uid=1)]
    append(file, mixed)
    append(file, lines(1, 3000, boot=BOOT_B, realtime=START + 10_000 * SECOND))
    share = used(file) / file.stat().st_size
    overwrite(file, (0.5 * share, 0.7 * share, 0.9 * share), garbage)
    readable = unfiltered(file)
    positions: Positions = {}
    texts, gaps = read(tmp_path, positions, BOOT_B)
    assert len(set(texts)) == len(texts)
    assert set(texts) >= {text for text in readable if text.startswith(("1-", "2-"))}
    missing = 9000 - len(texts)
    assert missing <= sum(gap.at_most or 0 for gap in gaps) + 3
    append(tmp_path / "b.journal", [line("2-last", SECOND + 60 * SECOND, boot=BOOT_B)])
    assert read(tmp_path, positions, BOOT_B)[0] == ["2-last"]
    assert read(tmp_path, positions, BOOT_B) == ([], [])


@pytest.mark.parametrize("begin", [0, 300, 4096, 100_000, 2_000_000])
def test_damage_before_the_first_entry_loses_no_line_unsaid(tmp_path: Path, begin: int) -> None:
    """Tables of hashes are at a file's beginning: a match whose bucket is gone finds nothing."""
    file = tmp_path / "a.journal"
    append(file, lines(1, 5000))
    with file.open("r+b") as opened:
        opened.seek(begin)
        opened.write(bytes(4096 if begin else 100))
    append(tmp_path / "b.journal", lines(5001, 5010))
    texts, gaps = read(tmp_path, {})
    assert set(texts) >= {*unfiltered(*([file] if begin else [])), *names(5001, 5010)}
    missing = sum(gap.at_most or 0 for gap in gaps)
    assert begin == 0 or missing >= 5010 - len(texts)
    assert (begin == 0) == bool(list(truncated_files((tmp_path,))))


@pytest.mark.parametrize("bit", [5, 46, 62, 63])
def test_a_damaged_size_in_the_table_of_fields_ends_nothing(tmp_path: Path, bit: int) -> None:
    """By that table an account's entries are found in a file that has those of others, too."""
    append(tmp_path / "a.journal", lines(1, 100))
    flip_bit_of(tmp_path / "a.journal", b"_PID", bit, "size")
    append(tmp_path / "b.journal", lines(101, 110))
    positions: Positions = {}
    texts, gaps = read(tmp_path, positions)
    assert sorted(texts) == sorted(names(1, 110)) and gaps == []
    assert read(tmp_path, positions) == ([], [])


def test_an_intact_journal_is_read_without_looking_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sorted(names(1, 4000) + names(1, 500, BOOT_B))
    monkeypatch.setattr(JournalReader, "_begin_recovery", lambda *_: pytest.fail("nothing is damaged"))
    positions: Positions = {}
    for n in range(4):
        append(tmp_path / f"{n}.journal", lines(1000 * n + 1, 1000 * n + 1000, each=3))
    append(tmp_path / "5.journal", lines(1, 500, boot=BOOT_B, realtime=START + 500 * SECOND))
    with reading(tmp_path, positions, BOOT_B) as reader:
        assert sorted(drain(reader, positions, 250)[0]) == expected
    for most in (1, 7, 100, 1001):
        positions = {}
        done: list[str] = []
        while len(done) < 4500:
            with reading(tmp_path, positions, BOOT_B) as reader:
                for _ in range(max(1, 1000 // most)):
                    batch = reader.read(most, 1 << 20)
                    done += [bytes(entry.fields["MESSAGE"]).decode() for entry in batch.entries]  # type: ignore[arg-type]
                    if batch.position is not None:
                        positions[batch.position.boot_id] = batch.position
        assert sorted(done) == expected


def test_lines_of_which_nothing_says_any_more_whose_they_are_are_counted(tmp_path: Path) -> None:
    """All lines of a unit refer to one object for its name; its first line in the file, right behind, is lost, too."""
    file = tmp_path / "a.journal"
    others = [line(f"ledger {n}", SECOND + n, service="ledger") for n in range(500)]
    append(file, [*others, *lines(1, 1000)])
    data = file.read_bytes()
    begin = data.index(b"_SYSTEMD_USER_UNIT=hivematrix-core.service") - 64
    end = data.index(b"MESSAGE=1-1") + 300
    assert begin < data.index(b"SYSLOG_IDENTIFIER=hivematrix-core") < end < begin + BLOCK
    file.write_bytes(data[:begin] + bytes(end - begin) + data[end:])
    append(tmp_path / "b.journal", lines(1001, 1010))
    with reading(tmp_path, {}) as reader:
        batches = [reader.read(100, 1 << 20)]
        while not batches[-1].at_end:
            batches.append(reader.read(100, 1 << 20))
    units = [entry.fields.get("_SYSTEMD_USER_UNIT") for batch in batches for entry in batch.entries]
    gaps = [gap for batch in batches for gap in batch.gaps]
    assert units.count(b"hivematrix-ledger.service") == 500
    assert 1000 <= sum(gap.at_most or 0 for gap in gaps) <= 1002


def skipped(directory: Path, *, broken: bool = False, each: int = 1) -> None:
    """3,000 lines of which a walk by matches passes by some 300 without an error. If BROKEN, it ends before the end."""
    file = directory / "a.journal"
    append(file, lines(1, 3000, each=each))
    # libsystemd takes a sequence number that is too high for the place of the entry that many behind.
    flip_bit(file, 1030, "seqnum", 8)
    flip_bit(file, 2020, "seqnum", 6)
    if broken:
        damage(file, 0.9, 1000)


def read_with_restarts(directory: Path, positions: Positions, most: int, batches: int) -> tuple[list[str], list[Gap]]:
    """Return all there is, by readers that are given up after some batches, when nothing more was passed by."""
    texts: list[str] = []
    gaps: list[Gap] = []
    at_end = False
    while not at_end:
        with reading(directory, positions) as reader:
            read = 0
            while not at_end and (read < batches or reader.find_missed_entries()):
                batch = reader.read(most, 1 << 20)
                read, at_end = read + 1, batch.at_end
                texts += [bytes(entry.fields["MESSAGE"]).decode() for entry in batch.entries]  # type: ignore[arg-type]
                gaps += batch.gaps
                if batch.position is not None:
                    positions[BOOT_A] = batch.position
    return texts, gaps


@pytest.mark.parametrize(("most", "batches"), [(1, 97), (37, 1), (250, 3), (1031, 1)])
@pytest.mark.parametrize("each", [1, 10])
@pytest.mark.parametrize("broken", [False, True])
def test_lines_that_a_walk_passed_by_are_found_before_a_restart(
    tmp_path: Path, most: int, batches: int, broken: bool, each: int
) -> None:
    skipped(tmp_path, broken=broken, each=each)
    readable = {text for text in unfiltered(tmp_path / "a.journal") if text.startswith("1-")}
    append(tmp_path / "b.journal", lines(3001, 3020))
    positions: Positions = {}
    texts, gaps = read_with_restarts(tmp_path, positions, most, batches)
    assert len(set(texts)) == len(texts)
    assert set(texts) >= {*readable, *names(3001, 3020)}
    missing = 3020 - len(texts)
    assert (missing > 0) == broken
    assert missing <= sum(gap.at_most or 0 for gap in gaps) <= missing + 2
    assert read_with_restarts(tmp_path, positions, most, batches) == ([], [])
