"""Querying real journal files by service, order and time, and following a journal."""

import os
import re
import threading
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from systemd import _reader

from helmd.cli.logs.format import OutputLine, format_named
from helmd.journal.keys import JournalKeys
from helmd.journal.query import Found, JournalBoot, JournalQuery, Wanted, boots, this_boot
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.logs.entry import HTTP, LogRow, datetime_of
from helmd.model.logs.level import LEVELS, level_named, levels_named
from helmd.model.logs.parsing.journal_fields import Value
from helmd.model.logs.timestamps import iso_timestamp
from helmd.systemd.timestamp import parse_timestamp
from tests.signing import action_fields, posted_fields
from tests.store.journals import (
    BOOT_A,
    BOOT_B,
    SECOND,
    START,
    UID,
    append,
    continue_numbers,
    flip_bit,
    flip_bit_of,
    line,
)
from tests.waiting import WITHIN, until

REMARK = {"_SYSTEMD_USER_UNIT": "init.scope", "USER_UNIT": "hivematrix-core.service", "SYSLOG_IDENTIFIER": "systemd"}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    entries = [
        line("started", 1 * SECOND, fields=REMARK | {"_TRANSPORT": "journal"}),
        line("one", 2 * SECOND),
        line("Two, trace-17", 3 * SECOND, service="nexus", fields={"PRIORITY": "5"}),
        line("a child's", 4 * SECOND, fields={"_SYSTEMD_USER_UNIT": "init.scope", "SYSLOG_IDENTIFIER": "bash"}),
        line("unit unknown", 5 * SECOND).replace(b"_SYSTEMD_USER_UNIT=hivematrix-core.service\n", b""),
        line("grave", 6 * SECOND, fields={"PRIORITY": "3"}),
        line("somebody else's", 7 * SECOND, uid=UID + 1),
        line("helm's own", 8 * SECOND, fields={"_SYSTEMD_USER_UNIT": "helmd.service", "SYSLOG_IDENTIFIER": "helmd"}),
        line("\x1b[31mred\x1b[0m\nbelow", 9 * SECOND, service="nexus"),
    ]
    append(tmp_path / "test.journal", entries)
    return tmp_path


def messages(found: list[Found]) -> list[str]:
    return [each.row.message for each in found]


def ask(journal: Path, wanted: Wanted) -> list[str]:
    with JournalQuery(UID, wanted, journal) as query:
        forward = messages(list(query.forward()))
    with JournalQuery(UID, wanted, journal) as query:
        assert messages(list(query.backward())) == forward[::-1]
    return forward


RED = "\x1b[31mred\x1b[0m\nbelow"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("service:nexus", ["Two, trace-17", RED]),
        ("service:n* -trace", [RED]),
        ("level>=error OR level:info two", ["Two, trace-17", "grave"]),
        ("/^.ne$/ source:journal", ["one"]),
        ("id:1", []),
    ],
)
def test_a_query_in_the_query_language(journal: Path, query: str, found: list[str]) -> None:
    assert ask(journal, Wanted(query=query)) == found


def test_all_lines_of_services(journal: Path) -> None:
    assert ask(journal, Wanted()) == ["started", "one", "Two, trace-17", "unit unknown", "grave", "helm's own", RED]


def test_lines_of_a_service_include_orphans_and_systemd_messages(journal: Path) -> None:
    assert ask(journal, Wanted(services=frozenset({"core"}))) == ["started", "one", "unit unknown", "grave"]
    assert ask(journal, Wanted(services=frozenset({"helm"}))) == ["helm's own"]
    assert ask(journal, Wanted(services=frozenset({"helm", "nexus"}))) == ["Two, trace-17", "helm's own", RED]
    assert ask(journal, Wanted(services=frozenset({"codex"}))) == []


def test_services_with_lines(journal: Path) -> None:
    with JournalQuery(UID, Wanted(), journal) as query:
        assert query.services() == {"core", "nexus", "helm"}


def test_filters(journal: Path) -> None:
    assert ask(journal, Wanted(levels=levels_named("warning"))) == ["grave"]
    assert ask(journal, Wanted(streams=frozenset({"stderr"}))) == ["Two, trace-17"]
    assert ask(journal, Wanted(pattern=re.compile("two", re.IGNORECASE))) == ["Two, trace-17"]
    assert ask(journal, Wanted(trace="trace-17")) == ["Two, trace-17"]
    assert ask(journal, Wanted(boot=BOOT_B)) == []


@pytest.mark.parametrize("pattern", ["two", "(?s)one.*two", "^two", "\ufffd", "^$", "[^o]"])
def test_a_pattern_selects_by_the_text_that_is_shown(tmp_path: Path, pattern: str) -> None:
    """Also where an entry has several messages, none, or one that is not UTF-8."""
    entries = [
        line("one", 1 * SECOND),
        line("two", 2 * SECOND, fields={"MESSAGE": "one"}),
        line(b"\xff", 3 * SECOND),
        line("", 4 * SECOND).partition(b"MESSAGE\n")[0] + b"\n",
    ]
    append(tmp_path / "test.journal", entries)
    shown = ask(tmp_path, Wanted())
    assert len(shown) == 4
    assert ask(tmp_path, Wanted(pattern=re.compile(pattern))) == [text for text in shown if re.search(pattern, text)]


def test_times_are_inclusive(journal: Path) -> None:
    assert ask(journal, Wanted(since=START + 5 * SECOND, until=START + 8 * SECOND)) == [
        "unit unknown",
        "grave",
        "helm's own",
    ]
    assert ask(journal, Wanted(since=START + 9 * SECOND + 1)) == []


@pytest.mark.parametrize("boot", [BOOT_A, this_boot()])
@pytest.mark.parametrize("number", [0, 20, -1])
@pytest.mark.parametrize("bit", [29, 40, 52])
@pytest.mark.parametrize("field", ["realtime", "monotonic"])
def test_a_damaged_time_ends_nothing(tmp_path: Path, field: str, bit: int, number: int, boot: str) -> None:
    """In the first, the last and another entry; the line is shown with the time that its neighbours make plausible."""
    text = [f"line {n}" for n in range(40)]
    append(tmp_path / "a.journal", [line(text[n], (1 + n) * SECOND, boot=boot) for n in range(30)])
    append(tmp_path / "b.journal", [line(text[n], (1 + n) * SECOND, boot=boot) for n in range(30, 40)])
    continue_numbers(tmp_path / "b.journal", tmp_path / "a.journal", 31)
    flip_bit(tmp_path / "a.journal", number, field, bit)
    since, until = START + SECOND // 2, START + 100 * SECOND
    assert ask(tmp_path, Wanted()) == ask(tmp_path, Wanted(since=since)) == text
    with JournalQuery(UID, Wanted(since=since, until=until), tmp_path) as query:
        shown = list(query.forward())
        assert messages(shown) == text
        for found in shown:
            meant = START + (1 + int(found.row.message.split()[1])) * SECOND
            assert abs(found.entry.realtime - meant) < 5 * SECOND, found.row.message


@pytest.mark.parametrize(
    ("content", "bit", "lost"),
    [
        pytest.param(b"MESSAGE=line 7", 7, {7}, id="a name that is not UTF-8"),
        pytest.param(b"MESSAGE=line 7", 59, {7}, id="no name"),
        pytest.param(b"_BOOT_ID=", 8, set(), id="no boot"),
        pytest.param(b"_BOOT_ID=", 102, set(), id="a boot that is not hexadecimal"),
    ],
)
def test_a_damaged_field_ends_nothing(tmp_path: Path, content: bytes, bit: int, lost: set[int]) -> None:
    append(tmp_path / "a.journal", [line("of another boot", SECOND, boot=BOOT_B, realtime=START)])
    append(tmp_path / "b.journal", [line(f"line {n}", (1 + n) * SECOND) for n in range(20)])
    flip_bit_of(tmp_path / "b.journal", content, bit)
    text = ["of another boot", *(f"line {n}" for n in range(20) if n not in lost)]
    assert ask(tmp_path, Wanted()) == text
    with JournalQuery(UID, Wanted(), tmp_path) as query:
        assert [found.row.boot_id for found in query.forward()] == [BOOT_B] + [BOOT_A] * (len(text) - 1)


def test_the_clock_was_set_back(tmp_path: Path) -> None:
    """journald began a new file then. What was written before that is dated after the end that is asked for."""
    for file, began, shown in (("ahead", 0, 100), ("back", 10, 0)):
        entries = [line(f"{file} {n}", (began + n) * SECOND, realtime=START + (shown + n) * SECOND) for n in (1, 2)]
        append(tmp_path / f"{file}.journal", entries)
    continue_numbers(tmp_path / "back.journal", tmp_path / "ahead.journal", 3)
    assert ask(tmp_path, Wanted()) == ["ahead 1", "ahead 2", "back 1", "back 2"]
    assert ask(tmp_path, Wanted(until=START + 50 * SECOND)) == ["back 1", "back 2"]
    assert ask(tmp_path, Wanted(since=START + SECOND, until=START + SECOND)) == ["back 1"]
    assert ask(tmp_path, Wanted(since=START + 50 * SECOND)) == ["ahead 1", "ahead 2"]
    assert ask(tmp_path, Wanted(since=START + 101 * SECOND, until=START + 101 * SECOND)) == ["ahead 1"]


@pytest.mark.parametrize("damaged", [False, True])
def test_boots_are_listed_also_after_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool) -> None:
    append(tmp_path / "a.journal", [line("text", n * SECOND) for n in (1, 2, 3)])
    append(tmp_path / "b.journal", [line("text", SECOND, boot=BOOT_B, realtime=START + 60 * SECOND)])
    if damaged:
        flip_bit_of(tmp_path / "a.journal", b"_BOOT_ID=", 36, "n_entries")
    open_journal = _reader._Reader
    monkeypatch.setattr(_reader, "_Reader", lambda _: open_journal(0, str(tmp_path)))
    assert boots(UID) == [
        JournalBoot(BOOT_A, START + SECOND, START + 3 * SECOND),
        JournalBoot(BOOT_B, START + 60 * SECOND, START + 60 * SECOND),
    ]


def test_last_lines_are_ordered(journal: Path) -> None:
    with JournalQuery(UID, Wanted(services=frozenset({"core"})), journal) as query:
        assert messages(query.last(2)) == ["unit unknown", "grave"]
        assert query.last(0) == []
        assert len(query.last(100)) == 4


def test_follow_yields_each_new_line_once_and_ends_with_its_reader(journal: Path) -> None:
    """Including lines of a new service; then the reader of the output closes it."""
    reading, writing = os.pipe()
    idle = threading.Semaphore(0)
    seen: list[str] = []

    def follow() -> None:
        with JournalQuery(UID, Wanted(), journal) as query:
            seen.extend(messages(query.last(2)))
            for found in query.follow(idle.release, writing):
                seen.append(found.row.message)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert idle.acquire(timeout=WITHIN)
    append(journal / "test.journal", [line("new", 20 * SECOND, service="late"), line("newer", 21 * SECOND)])
    until(lambda: len(seen) >= 4, pause=0.02)
    os.close(reading)
    thread.join(WITHIN)
    os.close(writing)
    assert not thread.is_alive()
    assert seen == ["helm's own", RED, "new", "newer"]


def formatted(journal: Path, name: str, *, terminal: bool) -> bytes:
    wanted = Wanted(services=frozenset({"nexus"}))
    write = format_named(name, colour=False, terminal=terminal)
    with JournalQuery(UID, wanted, journal) as query:
        found = query.last(1)[0]
        return write(OutputLine(found.row, entry=found.entry))


def test_escapes_never_reach_a_terminal(journal: Path) -> None:
    for name in ("short", "cat", "json", "verbose"):
        assert b"\x1b" not in formatted(journal, name, terminal=True), name
    assert b"\x1b" not in formatted(journal, "json", terminal=False)
    assert formatted(journal, "cat", terminal=False) == RED.encode() + b"\n"


def test_following_lines_of_a_message_are_indented(journal: Path) -> None:
    first, second, rest = formatted(journal, "short", terminal=True).decode().split("\n")
    assert rest == ""
    assert first.endswith(r"nexus[77]: \x1b[31mred\x1b[0m")
    assert second == " " * first.index("\\") + "below"


def test_levels() -> None:
    assert levels_named("err") == {"ERROR", "CRITICAL"}
    assert levels_named("6") == {"INFO", "WARNING", "ERROR", "CRITICAL"}
    assert levels_named("Warning..info") == {"INFO", "WARNING"}
    assert level_named("FATAL") == "CRITICAL"
    with pytest.raises(ValueError, match="unknown level 'loud'"):
        levels_named("loud")


@given(st.sampled_from(LEVELS), st.sampled_from(LEVELS))
def test_a_range_has_both_ends(one: str, other: str) -> None:
    assert {one, other} <= levels_named(f"{one}..{other}") <= set(LEVELS)
    assert one in levels_named(one)


def test_timestamps() -> None:
    assert iso_timestamp("2023-11-14T22:13:20Z") == START
    assert iso_timestamp("2023-11-15T00:13:20+02:00") == START
    assert iso_timestamp("10 min ago") is None
    assert parse_timestamp("@1700000000") == START
    assert parse_timestamp("2023-11-14 22:13:20 UTC") == START
    assert parse_timestamp("-1h") < parse_timestamp("10 min ago") < parse_timestamp("now")
    for bad in ("", "gestern", "--help", "a\0b", "\x1b[31m", "9" * 400, "0001-01-01"):
        with pytest.raises(ValueError, match="is not a time"):
            parse_timestamp(bad)


def test_what_helm_wrote_itself_is_shown_as_such_and_forged_entries_as_lines(tmp_path: Path) -> None:
    files, keys_file = tmp_path / "journal", tmp_path / "journal.keys"
    files.mkdir()
    (key,) = JournalKeys(keys_file).ensure()
    row = LogRow(datetime_of(key.since), "codex", "ERROR", "posted", source=HTTP)
    posted = posted_fields(PostedRow(row, str(UUID(int=1))), key.since, key)
    action = action_fields(str(UUID(int=2)), key.since, key)

    def entry(fields: dict[str, Value], number: int, unit: str) -> bytes:
        text = {name: value.decode() for name, value in fields.items() if isinstance(value, bytes)}
        given = {**text, "_SYSTEMD_USER_UNIT": unit, "_TRANSPORT": "journal"}
        return line(given.pop("MESSAGE"), number, realtime=key.since + number, fields=given)

    entries = [
        entry(posted, 1, "helmd.service"),
        entry(action, 2, "session.scope"),
        entry({**posted, "MESSAGE": b"forged post"}, 3, "helmd.service"),
        entry({**action, "MESSAGE": b"forged action"}, 4, "session.scope"),
    ]
    append(files / "test.journal", entries)

    def shown(keys: Path | None, *services: str, pattern: str = "") -> list[tuple[str, str, str]]:
        wanted = Wanted(services=frozenset(services) or None, pattern=re.compile(pattern) if pattern else None)
        with JournalQuery(UID, wanted, files, keys) as query:
            return [(each.row.service_name, each.row.source, each.row.message) for each in query.forward()]

    believed = [("codex", "http", "posted"), ("core", "helm", "restart core: done")]
    lines = [("helm", "journal", "forged post"), ("helm", "journal", "forged action")]
    assert shown(keys_file) == [*believed, *lines]
    assert shown(keys_file, "codex") == believed[:1]
    assert shown(keys_file, "core") == believed[1:]
    assert shown(keys_file, pattern="^restart core: done$") == believed[1:]
    assert {(service, source) for service, source, _ in shown(None)} == {("helm", "journal")}
