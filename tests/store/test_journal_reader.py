"""Finding the place again in journals that were rotated, cut by a power failure, renumbered or damaged."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helmd.journal.mapped import release_pages
from helmd.journal.reader import JournalError, JournalReader
from helmd.model.logs.parsing.journal_fields import SUPPRESSED, row_of, suppression_row
from helmd.model.logs.parsing.position import Gap, Missing, Position
from tests.store.journals import (
    BOOT_A,
    BOOT_B,
    BOOT_C,
    SECOND,
    START,
    UID,
    append,
    begin_writing,
    continue_numbers,
    damage,
    line,
    lines,
)
from tests.waiting import WITHIN

Positions = dict[str, Position]


@contextmanager
def reading(directory: Path, positions: Positions, boot: str = BOOT_A) -> Iterator[JournalReader]:
    reader = JournalReader(UID, boot, directory)
    try:
        reader.seek(positions)
        yield reader
    finally:
        reader.close()


def drain(reader: JournalReader, positions: Positions, most: int = 7) -> tuple[list[str], list[Gap]]:
    """Return all that is there now, batch by batch; POSITIONS moves along as the store's would."""
    texts: list[str] = []
    gaps: list[Gap] = []
    while True:
        batch = reader.read(most, 1 << 20)
        texts += [bytes(entry.fields["MESSAGE"]).decode() for entry in batch.entries]  # type: ignore[arg-type]
        gaps += batch.gaps
        if batch.position is not None:
            positions[batch.position.boot_id] = batch.position
        if batch.at_end:
            return texts, gaps


def read(directory: Path, positions: Positions, boot: str = BOOT_A) -> tuple[list[str], list[Gap]]:
    with reading(directory, positions, boot) as reader:
        return drain(reader, positions)


def names(first: int, last: int, boot: str = BOOT_A) -> list[str]:
    return [f"{boot[0]}-{n}" for n in range(first, last + 1)]


def instant(n: int) -> int:
    return START + SECOND + n * 1000


def test_starts_at_the_head_and_resumes_behind_the_cursor(tmp_path: Path) -> None:
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 40))
    assert read(tmp_path, positions) == (names(1, 40), [])
    assert read(tmp_path, positions) == ([], [])
    append(tmp_path / "a.journal", lines(41, 60))
    assert read(tmp_path, positions) == (names(41, 60), [])


@pytest.mark.parametrize("read_on", [20, 33])
def test_what_the_store_lost_again_is_read_again_although_its_file_has_ended(tmp_path: Path, read_on: int) -> None:
    """The same reader goes back, as after a commit that failed: the rest of a file that was read to its end is new."""
    positions: Positions = {}
    archived = tmp_path / "a@1.journal"
    append(archived, lines(1, 30))
    append(tmp_path / "a.journal", lines(31, 40))
    continue_numbers(tmp_path / "a.journal", archived, 31)
    with reading(tmp_path, positions) as reader:
        batch = reader.read(10, 1 << 20)
        assert len(batch.entries) == 10 and batch.position is not None
        stored = {BOOT_A: batch.position}
        assert drain(reader, positions, read_on) == (names(11, 40), [])
        reader.seek(stored)
        assert drain(reader, stored, 7) == (names(11, 40), [])


def test_other_accounts_are_left_out(tmp_path: Path) -> None:
    append(tmp_path / "a.journal", [*lines(1, 2), line("alien", SECOND + 5000, uid=1), *lines(6, 7)])
    assert read(tmp_path, {})[0] == names(1, 2) + names(6, 7)


def test_stops_in_the_middle_of_a_microsecond_and_goes_on_there(tmp_path: Path) -> None:
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(0, 39, each=10))
    with reading(tmp_path, positions) as reader:
        batch = reader.read(14, 1 << 20)
    assert batch.position is not None and batch.position.ties == 4
    positions[BOOT_A] = batch.position
    assert read(tmp_path, positions) == (names(14, 39), [])


def test_boots_are_read_in_order_and_the_earlier_one_is_closed(tmp_path: Path) -> None:
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 10))
    append(tmp_path / "a.journal", lines(1, 10, boot=BOOT_B, realtime=START + 100 * SECOND))
    assert read(tmp_path, positions, BOOT_B) == (names(1, 10) + names(1, 10, BOOT_B), [])
    assert positions[BOOT_A].finished and not positions[BOOT_B].finished
    append(tmp_path / "a.journal", [line("3-1", SECOND, boot=BOOT_C, realtime=START + 200 * SECOND)])
    assert read(tmp_path, positions, BOOT_C) == (["3-1"], [])
    assert positions[BOOT_B].finished


def test_a_clock_that_went_back_over_a_boot_hides_nothing(tmp_path: Path) -> None:
    """By wall clock the new boot lies before the cursor, in a file with other sequence numbers."""
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 30))
    assert read(tmp_path, positions) == (names(1, 30), [])
    append(tmp_path / "b.journal", lines(1, 30, boot=BOOT_B, realtime=START - 3600 * SECOND))
    assert read(tmp_path, positions, BOOT_B) == (names(1, 30, BOOT_B), [])


def test_power_cut_leaves_the_store_ahead_and_reuses_sequence_numbers(tmp_path: Path) -> None:
    file, saved = tmp_path / "a.journal", tmp_path / "saved"
    positions: Positions = {}
    append(file, lines(1, 60))
    shutil.copy(file, saved)
    append(file, lines(61, 100))
    assert read(tmp_path, positions) == (names(1, 100), [])
    shutil.move(saved, file)
    # The same file goes on in a new boot, with the numbers 61 … a second time.
    append(file, lines(1, 50, boot=BOOT_B, realtime=START + 500 * SECOND))
    texts, gaps = read(tmp_path, positions, BOOT_B)
    assert texts == names(1, 50, BOOT_B)
    assert gaps == [Gap(instant(100), START + 500 * SECOND, Missing.LOST)]
    assert read(tmp_path, positions, BOOT_B) == ([], [])


def test_power_cut_with_a_new_file_and_the_clock_behind(tmp_path: Path) -> None:
    file, saved = tmp_path / "a.journal", tmp_path / "saved"
    positions: Positions = {}
    append(file, lines(1, 60))
    shutil.copy(file, saved)
    append(file, lines(61, 100))
    read(tmp_path, positions)
    shutil.move(saved, tmp_path / "a@cut.journal")
    file.unlink()
    append(file, lines(1, 50, boot=BOOT_B, realtime=START))
    texts, gaps = read(tmp_path, positions, BOOT_B)
    assert texts == names(1, 50, BOOT_B)
    assert [gap.at_most for gap in gaps] == [None]


def test_power_cut_before_the_rest_of_a_boot_was_read(tmp_path: Path) -> None:
    """The cursor survived: the rest of that boot is read, then the new boot; no gap is reported."""
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 30))
    read(tmp_path, positions)
    append(tmp_path / "a.journal", lines(31, 60))
    append(tmp_path / "b.journal", lines(1, 5, boot=BOOT_B, realtime=START))
    assert read(tmp_path, positions, BOOT_B) == (names(31, 60) + names(1, 5, BOOT_B), [])


def test_rotated_past_the_cursor_says_how_many_at_most(tmp_path: Path) -> None:
    old, new = tmp_path / "old.journal", tmp_path / "a.journal"
    positions: Positions = {}
    append(old, lines(1, 50))
    read(tmp_path, positions)
    append(new, lines(81, 100))
    continue_numbers(new, old, 81)
    old.unlink()
    assert read(tmp_path, positions) == (names(81, 100), [Gap(instant(50), instant(81), Missing.LOST, 30)])
    assert read(tmp_path, positions) == ([], [])


@pytest.mark.parametrize("batch", [7, 52, 53, 1000])
def test_an_entry_that_journald_wrote_into_two_files_is_one(tmp_path: Path, batch: int) -> None:
    """As it does when a file is full; the same text once more in the same microsecond of one file is another line."""
    old, new = tmp_path / "old.journal", tmp_path / "a.journal"
    positions: Positions = {}
    append(old, [*lines(1, 49), *[line("again", SECOND + 60_000)] * 3])
    append(new, [*[line("again", SECOND + 60_000)] * 2, *lines(71, 80)])
    continue_numbers(new, old, 53)
    with reading(tmp_path, positions) as reader:
        texts, gaps = drain(reader, positions, batch)
    assert (texts, gaps) == ([*names(1, 49), *["again"] * 4, *names(71, 80)], [])
    assert read(tmp_path, positions) == ([], [])


def test_rotated_just_behind_the_cursor_is_no_gap(tmp_path: Path) -> None:
    old, new = tmp_path / "old.journal", tmp_path / "a.journal"
    positions: Positions = {}
    append(old, lines(0, 49, each=100))
    read(tmp_path, positions)
    append(new, lines(50, 99, each=100))
    continue_numbers(new, old, 51)
    old.unlink()
    # All hundred entries have the same time; only the numbers show that these are others.
    assert read(tmp_path, positions) == (names(50, 99), [])


def test_everything_rotated_away_is_reported_once(tmp_path: Path) -> None:
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 20))
    read(tmp_path, positions)
    (tmp_path / "a.journal").unlink()
    texts, gaps = read(tmp_path, positions)
    assert (texts, [gap.since for gap in gaps]) == ([], [instant(20)])
    assert read(tmp_path, positions) == ([], [])
    append(tmp_path / "b.journal", lines(21, 30))
    assert read(tmp_path, positions) == (names(21, 30), [])


def test_entries_copied_to_another_file_are_known_again(tmp_path: Path) -> None:
    """journalctl --flush copies the runtime journal to disk: other numbers, the same entries."""
    positions: Positions = {}
    append(tmp_path / "run.journal", lines(0, 24, each=10))
    read(tmp_path, positions)
    (tmp_path / "run.journal").unlink()
    append(tmp_path / "a.journal", lines(0, 39, each=10))
    assert read(tmp_path, positions) == (names(25, 39), [])


@pytest.mark.parametrize(("cursor", "numbered"), [("", True), ("", False), ("x=1", False)])
def test_a_lost_place_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cursor: str, numbered: bool
) -> None:
    """As after a power cut. Without a cursor all that is older is passed by, its memory given back now and then."""
    monkeypatch.setattr("helmd.journal.reader.LOOKUP_STEPS", 1)
    monkeypatch.setattr("helmd.journal.comparison._RELEASE_AFTER", 40)
    positions: Positions = {}
    files = [tmp_path / f"{n}.journal" for n in range(4)]
    for n, file in enumerate(files):
        append(file, lines(100 * n, 100 * n + 99))
        if n and numbered:
            continue_numbers(file, files[0], 100 * n + 1)
    assert len(read(tmp_path, positions)[0]) == 400
    files[3].unlink()
    append(files[3], lines(450, 459))
    if numbered:
        continue_numbers(files[3], files[0], 451)
    if cursor:
        positions[BOOT_A] = positions[BOOT_A]._replace(cursor=cursor)
    passed: list[None] = []
    reader = JournalReader(UID, BOOT_A, tmp_path)
    reader.seek(positions, lambda: passed.append(None))
    assert len(passed) == (301 if cursor else 1)
    gap = Gap(instant(399), instant(450), Missing.LOST, 50 if numbered else None)
    assert drain(reader, positions) == (names(450, 459), [gap])
    reader.close()


def test_the_search_for_a_lost_place_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.journal.reader.LOOKUP_STEPS", 10)
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 50))
    read(tmp_path, positions)
    last = positions[BOOT_A]
    positions[BOOT_A] = last._replace(cursor="of another form", monotonic=last.monotonic + SECOND)

    def enough() -> None:
        raise JournalError("enough")

    reader = JournalReader(UID, BOOT_A, tmp_path)
    with pytest.raises(JournalError, match="enough"):
        reader.seek(positions, enough)
    reader.close()


def test_a_cursor_of_unknown_form_counts_as_lost(tmp_path: Path) -> None:
    append(tmp_path / "a.journal", lines(1, 20))
    positions = {BOOT_A: Position(BOOT_A, "gibberish", instant(12), SECOND + 12_000, 1)}
    texts, gaps = read(tmp_path, positions)
    assert texts == names(13, 20)
    assert [gap.why for gap in gaps] == [Missing.LOST]


@pytest.mark.parametrize("size", [64, 4000, 60_000])
def test_garbage_in_a_file_ends_nothing_before_the_end(tmp_path: Path, size: int) -> None:
    file = tmp_path / "a.journal"
    append(file, lines(1, 4000))
    damage(file, 0.3, size)
    append(tmp_path / "b.journal", lines(5001, 5100))
    command = ["journalctl", "-D", str(tmp_path), f"_UID={UID}", "-o", "cat", "--output-fields=MESSAGE"]
    seen = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    texts, _ = read(tmp_path, {})
    assert set(seen) <= set(texts)
    assert len(texts) == len(set(texts))
    assert 1100 < len(texts) < 4100


async def test_follows_appended_entries_and_new_files(tmp_path: Path) -> None:
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 5))
    with reading(tmp_path, positions) as reader:
        assert drain(reader, positions)[0] == names(1, 5)
        for n in range(6, 12):
            file = tmp_path / ("a.journal" if n % 2 else f"{n}.journal")
            await asyncio.gather(reader.wait(5), asyncio.to_thread(append, file, lines(n, n)))
            texts: list[str] = []
            async with asyncio.timeout(WITHIN):
                while not texts:
                    texts = drain(reader, positions)[0]
                    if not texts:
                        await reader.wait(1)
            assert texts == names(n, n)


async def test_files_that_came_and_went_while_nobody_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.journal.reader._STALE", 0.0)
    positions: Positions = {}
    old, new = tmp_path / "old.journal", tmp_path / "a.journal"
    append(old, lines(1, 50))
    with reading(tmp_path, positions) as reader:
        drain(reader, positions)
        append(new, lines(81, 100))
        continue_numbers(new, old, 81)
        old.unlink()
        await reader.wait(5)
        assert drain(reader, positions) == (names(81, 100), [Gap(instant(50), instant(81), Missing.LOST, 30)])


def test_a_reader_that_goes_on_in_a_file_that_came_since_finds_it(tmp_path: Path) -> None:
    """As when another process stored for a while and this one takes over again."""
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 10))
    with reading(tmp_path, positions) as reader:
        drain(reader, positions)
        append(tmp_path / "b.journal", lines(11, 30))
        assert read(tmp_path, positions) == (names(11, 30), [])
        append(tmp_path / "b.journal", lines(31, 40))
        reader.seek(positions)
        assert drain(reader, positions) == (names(31, 40), [])


@pytest.mark.parametrize("batch", [3, 7, 40])
@pytest.mark.parametrize("each", [1, 4])
def test_giving_memory_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, each: int
) -> None:
    monkeypatch.setattr("helmd.journal.comparison._RELEASE_AFTER", 20)
    append(tmp_path / "a.journal", lines(1, 91, each=each))
    append(tmp_path / "b.journal", lines(92, 200, each=each))
    append(tmp_path / "b.journal", lines(1, 60, boot=BOOT_B, realtime=START + 500 * SECOND))
    positions: Positions = {}
    with reading(tmp_path, positions, BOOT_B) as reader:
        assert drain(reader, positions, batch) == (names(1, 200) + names(1, 60, BOOT_B), [])


def resident(path: Path) -> int:
    """Return kilobytes of a file that count as this process's memory (proc(5), smaps)."""
    found, of_it = 0, False
    for text in Path("/proc/self/smaps").read_text().splitlines():
        if not text.split(maxsplit=1)[0].endswith(":"):
            of_it = text.endswith(str(path))
        elif of_it and text.startswith("Rss:"):
            found += int(text.split()[1])
    return found


def test_memory_of_the_files_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.journal"
    append(file, [line(f"{n:06}" + "x" * 2000, SECOND + n) for n in range(2000)])
    for after, most in ((1_000_000, 1 << 20), (100, 1024)):
        monkeypatch.setattr("helmd.journal.comparison._RELEASE_AFTER", after)
        positions: Positions = {}
        with reading(tmp_path, positions) as reader:
            texts, _ = drain(reader, positions, 100)
            assert [text[:6] for text in texts] == [f"{n:06}" for n in range(2000)]
            assert resident(file) <= most
            if after > len(texts):
                assert resident(file) > 3000
                release_pages()
                assert resident(file) == 0


def test_memory_is_given_back_at_the_end_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after few entries; what was freed, after more of them, once they are stored."""
    freed: list[int] = []
    monkeypatch.setattr("helmd.journal.comparison.trim_heap", lambda: freed.append(len(positions)))
    monkeypatch.setattr("helmd.journal.comparison._TRIM_AFTER", 100)
    monkeypatch.setattr("helmd.journal.comparison._IDLE_RELEASE_SECONDS", 0.0)
    file = tmp_path / "a.journal"
    append(file, [line(f"{n:06}" + "x" * 2000, SECOND + n) for n in range(400)])
    positions: Positions = {}
    with reading(tmp_path, positions) as reader:
        assert len(drain(reader, positions, 60)[0]) == 400
        assert freed == []
        assert resident(file) > 100
        assert drain(reader, positions)[0] == []
        assert resident(file) <= 100
        assert freed == [1]
        append(file, [line("few", 2 * SECOND)])
        assert drain(reader, positions)[0] == ["few"]
        assert drain(reader, positions)[0] == []
        assert freed == [1]


def test_a_deleted_file_that_is_still_being_read_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.journal.comparison._RELEASE_AFTER", 5)
    append(tmp_path / "a.journal", lines(1, 90))
    append(tmp_path / "b.journal", lines(91, 200))
    positions: Positions = {}
    with reading(tmp_path, positions) as reader:
        first = reader.read(4, 1 << 20)
        for file in tmp_path.iterdir():
            file.unlink()
        texts, gaps = drain(reader, positions)
    assert (len(first.entries), texts, gaps) == (4, names(5, 200), [])


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 1000])
def test_one_can_stop_and_go_on_anywhere(tmp_path: Path, batch: int) -> None:
    """At each stop another one can go on."""
    file = tmp_path / "a.journal"
    append(file, [*lines(0, 99, each=5), *[line("same", SECOND + 500_000)] * 9, *lines(600, 640)])
    expected = names(0, 99) + ["same"] * 9 + names(600, 640)
    positions: Positions = {}
    with reading(tmp_path, positions) as reader:
        done = 0
        while not (read_now := reader.read(batch, 1 << 20)).at_end:
            done += len(read_now.entries)
            assert read_now.position is not None and read_now.position.cursor
            assert read_now.size == sum(len(entry.fields["MESSAGE"]) for entry in read_now.entries)
            elsewhere = {BOOT_A: read_now.position}
            assert read(tmp_path, elsewhere) == (expected[done:], [])
    assert done + len(read_now.entries) == len(expected)


@pytest.mark.parametrize("size", [64, 3000])
def test_damage_is_read_over_alike_whatever_the_batches(tmp_path: Path, size: int) -> None:
    """What comes behind it in its file is found by walking on only, so nothing may look for its place again."""
    append(tmp_path / "a.journal", lines(1, 1000))
    damage(tmp_path / "a.journal", 0.3, size)
    append(tmp_path / "b.journal", lines(5001, 5100))
    found = []
    for batch in (7, 250, 2000):
        positions: Positions = {}
        with reading(tmp_path, positions) as reader:
            texts, gaps = drain(reader, positions, batch)
        found.append(texts)
        assert all(gap.why == Missing.UNREADABLE for gap in gaps)
        assert positions[BOOT_A].monotonic == SECOND + 5100 * 1000
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == len(found[0]) > 300 and found[0][-100:] == names(5001, 5100)


def suppressed(monotonic: int, **fields: str) -> bytes:
    """Return journald's notice that it threw away lines of this account."""
    notice = {
        "MESSAGE_ID": SUPPRESSED.decode(),
        "N_DROPPED": "4711",
        "OBJECT_UID": str(UID),
        "_TRANSPORT": "driver",
        "SYSLOG_IDENTIFIER": "systemd-journald",
        "_SYSTEMD_USER_UNIT": "",
        **fields,
    }
    uid = int(notice.pop("_UID", "0"))
    return line("Suppressed 4711 messages", monotonic, uid=uid, fields=notice)


def test_journalds_notice_is_read_and_nobody_elses(tmp_path: Path) -> None:
    """Another account can write all fields but those that begin with an underscore."""
    forged = {"_TRANSPORT": "journal", "SYSLOG_IDENTIFIER": "hivematrix-core"}
    mine = {**forged, "_SYSTEMD_USER_UNIT": "hivematrix-core.service"}
    positions: Positions = {}
    append(
        tmp_path / "a.journal",
        [
            *lines(1, 3),
            suppressed(SECOND + 4_000),
            suppressed(SECOND + 5_000, _UID="1001", **forged),
            suppressed(SECOND + 5_000, _UID="1001", **mine),
            suppressed(SECOND + 6_000, _UID="0", **forged),
            suppressed(SECOND + 7_000, _UID="1001"),
            suppressed(SECOND + 8_000, OBJECT_UID="1001"),
            suppressed(SECOND + 9_000, _UID=str(UID), **mine),
            *lines(10, 12),
        ],
    )
    with reading(tmp_path, positions) as reader:
        texts, gaps = drain(reader, positions, 2)
    assert (len(texts), gaps) == (3 + 1 + 1 + 3, [])
    assert positions[BOOT_A].monotonic == SECOND + 12_000
    with reading(tmp_path, {}) as reader:
        found = [suppression_row(entry) or row_of(entry) for entry in reader.read(100, 1 << 20).entries]
    notified = [(row.source, row.service_name) for row in found if row is not None and "4" in row.message]
    assert notified == [("helm", "helm"), ("journal", "core")]


def test_damage_in_the_name_of_a_field_is_one_unreadable_entry(tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    append(file, [line("1", SECOND), line("2", SECOND + 1, fields={"QUITE_SPECIAL": "x"}), line("3", SECOND + 2)])
    file.write_bytes(file.read_bytes().replace(b"QUITE_SPECIAL=", b"QUITE_\xff\xfeECIAL="))
    reader = JournalReader(UID, BOOT_A, tmp_path)
    reader.seek({})
    batch = reader.read(100, 1 << 20)
    reader.close()
    assert [entry.fields["MESSAGE"] for entry in batch.entries] == [b"1", b"3"]
    assert [gap.at_most for gap in batch.gaps] == [1]


async def test_entries_recovered_from_an_unnoticed_file_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison sees a new file before libsystemd does; afterwards the walk meets its last entries again."""
    monkeypatch.setattr("helmd.journal.comparison._CHECK_SECONDS", 0.0)
    monkeypatch.setattr("helmd.journal.comparison._CONFIRM", False)
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 20))
    with reading(tmp_path, positions) as reader:
        assert drain(reader, positions)[0] == names(1, 20)
        append(tmp_path / "b.journal", lines(21, 40))
        texts, _ = drain(reader, positions)
        await reader.wait(1)
        texts += drain(reader, positions)[0]
        append(tmp_path / "c.journal", lines(41, 50))
        await reader.wait(1)
        texts += drain(reader, positions)[0]
    assert texts == names(21, 50)


def test_an_entry_behind_the_ends_of_several_files_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that end between two entries of the account are each compared before the second entry is counted."""
    monkeypatch.setattr("helmd.journal.comparison._CONFIRM", False)
    positions: Positions = {}
    append(tmp_path / "a.journal", lines(1, 20))
    append(tmp_path / "b.journal", [line("another's", 20 * SECOND, uid=UID + 1)])
    append(tmp_path / "c.journal", [line("another's", 21 * SECOND, uid=UID + 1)])
    late = [line(f"late {n}", 30 * SECOND) for n in range(20)]
    append(tmp_path / "d.journal", late)
    texts, gaps = read(tmp_path, positions)
    assert texts == [*names(1, 20), *(f"late {n}" for n in range(20))]
    assert gaps == []


def test_an_entry_with_many_large_fields_is_bounded(tmp_path: Path) -> None:
    """Its text and journald's fields are kept, the others up to a limit; and few such are read at once."""
    mebibyte = 1024 * 1024
    large = {f"FIELD_{n:02}": f"{n:02}" * (mebibyte // 2) for n in range(30)}
    several = {f"OTHER_{n}": f"{n}" * mebibyte for n in range(6)}
    huge = line("huge", SECOND, fields={"_TRANSPORT": "journal", **large})
    heavy = [line(f"heavy {n}", 2 * SECOND + n, fields={"_TRANSPORT": "journal", **several}) for n in range(8)]
    append(tmp_path / "a.journal", [huge, *heavy, line("last", 3 * SECOND)])
    with reading(tmp_path, {}) as reader:
        batch = reader.read(250, 4 * mebibyte)
        (entry,) = batch.entries
        kept = sum(len(value) for value in entry.fields.values())
        assert 8 * mebibyte < kept <= 17 * mebibyte
        row = row_of(entry)
        assert row is not None and row.message == "huge" and row.service_name == "core" and row.context is not None
        cut = str(row.context["_cut_fields"]).split(", ")
        assert set(cut) == set(large) - set(entry.fields)
        found = []
        while not batch.at_end:
            batch = reader.read(250, 4 * mebibyte)
            assert len(batch.entries) <= 2
            found += [entry.fields["MESSAGE"] for entry in batch.entries]
        assert found == [*(b"heavy %d" % n for n in range(8)), b"last"]


def test_a_file_that_was_just_opened_in_another_boot_is_compared_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmd.journal.comparison._CHECK_SECONDS", 0.0)
    file = tmp_path / "a.journal"
    positions: Positions = {}
    append(file, lines(1, 400))
    begin_writing(file, BOOT_B)
    with reading(tmp_path, positions) as reader:
        texts = drain(reader, positions)[0]
        assert not reader.find_missed_entries()
        append(file, lines(401, 800))
        texts += drain(reader, positions)[0]
        assert not reader.find_missed_entries()
        assert drain(reader, positions) == ([], [])
    assert texts == names(1, 800)


def test_damage_is_found_in_a_boot_whose_first_entry_was_not_written_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's last entry is of the boot before, and later after its boot than all entries of this one."""
    monkeypatch.setattr("helmd.journal.comparison._CHECK_SECONDS", 0.0)
    monkeypatch.setattr("helmd.journal.comparison._CONFIRM", False)
    file = tmp_path / "a.journal"
    positions: Positions = {}
    append(file, lines(5001, 5010, boot=BOOT_B))
    begin_writing(file, BOOT_A)
    with reading(tmp_path, positions) as reader:
        assert drain(reader, positions) == (names(5001, 5010, BOOT_B), [])
        append(file, lines(1, 800))
        damage(file, 0.5, 300)
        texts, gaps = drain(reader, positions)
        more, more_gaps = drain(reader, positions)
    assert texts + more == [name for name in names(1, 800) if name in texts + more]
    missing = 800 - len(texts + more)
    assert 0 < missing == sum(gap.at_most or 0 for gap in gaps + more_gaps)
