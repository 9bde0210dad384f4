"""From journal entries to rows: parsed, joined, put together again, and the same over a restart at any place."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helmd.lifecycle import log_to_stderr
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.layout import layout
from helmd.model.logs.entry import MESSAGE_LIMIT, LogRow, datetime_of
from helmd.model.logs.parsing import journal_entries as assembly
from helmd.model.logs.parsing.format_schema import read_formats
from helmd.model.logs.parsing.journal_entries import Assembler
from helmd.model.logs.parsing.journal_fields import SUPPRESSED, JournalEntry, Value
from helmd.operations.configuration.load import load_formats
from tests.signing import OWN, action_fields, posted_fields

SHARE = Path(__file__).resolve().parents[2]
FORMATS = load_formats(layout({}, SHARE, 0, SHARE))
BOOT = "b" * 32
WHEN = 1_700_000_000_123_456
PART = 48 * 1024
"""What journald 252 makes of a longer line: parts of just under LineMax=48K."""

TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "/app/run.py", line 3, in <module>',
    "    main()",
    "ValueError: größer",
]


def entry(message: Value = b"hello", number: int = 0, /, **fields: Value) -> JournalEntry:
    """Return a line of ``core``'s stdout, NUMBER milliseconds after the first."""
    printed: dict[str, Value] = {
        "_TRANSPORT": b"stdout",
        "_SYSTEMD_USER_UNIT": b"hivematrix-core.service",
        "SYSLOG_IDENTIFIER": b"hivematrix-core",
        "_STREAM_ID": b"5" * 32,
        "_PID": b"42",
        "_HOSTNAME": b"box",
        "PRIORITY": b"6",
        "MESSAGE": message,
        **fields,
    }
    return JournalEntry(printed, "s=1", BOOT, 5 + number * 1000, WHEN + number * 1000)


def rows_of(entries: Iterable[JournalEntry]) -> list[LogRow]:
    assembler = Assembler(FORMATS)
    assembler.take(entries)
    assembler.finish_all()
    return assembler.rows


def row_of_line(message: Value, **fields: Value) -> LogRow:
    (row,) = rows_of([entry(message, **fields)])
    return row


def test_a_plain_line() -> None:
    assert row_of_line(b"hello") == LogRow(
        timestamp=datetime_of(WHEN),
        service_name="core",
        level="INFO",
        message="hello",
        hostname="box",
        process_id=42,
        source="journal",
        unit="hivematrix-core.service",
        stream="stdout",
        boot_id=BOOT,
    )


def test_a_json_line() -> None:
    said = {
        "timestamp": "2023-11-14T22:13:20.1234Z",
        "level": "WARNING",
        "message": "m",
        "correlation_id": "c1",
        "n": 1,
    }
    row = row_of_line(json.dumps(said).encode(), PRIORITY=b"5")
    assert (row.level, row.message, row.trace_id, row.context, row.stream) == ("WARNING", "m", "c1", {"n": 1}, "stderr")


def test_a_level_in_the_text_counts_more_than_the_priority() -> None:
    assert row_of_line(b"ERROR:app:broken", PRIORITY=b"6").level == "ERROR"
    assert row_of_line(b"broken", PRIORITY=b"3").level == "ERROR"
    assert row_of_line(b"broken", PRIORITY=b"").level == "INFO"


def test_a_pid_that_the_text_states_is_kept_where_it_is_another_one() -> None:
    assert row_of_line(b"[2023-11-14 22:13:20 +0000] [42] [INFO] x").context is None
    assert row_of_line(b"[2023-11-14 22:13:20 +0000] [43] [INFO] x").context == {"pid": 43}


@pytest.mark.parametrize(
    ("raw", "message", "context"),
    [
        (b"nul \0 here", "nul \ufffd here", {"bytes_replaced": True}),
        (b"\xff\xfe", "\ufffd\ufffd", {"bytes_replaced": True}),
        (bytes(range(128, 256)), None, {"bytes_replaced": True}),
        (b"\x1b[31mred\x1b[0m \x1b]0;title\x07x", "red x", {"ansi": True}),
        (b"", "", None),
        ([b"one", b"two"], "one\ntwo", None),
        (b"\x7fELF\x02\x01\x01\0\0", "\x7fELF\x02\x01\x01\ufffd\ufffd", {"bytes_replaced": True}),
    ],
)
def test_what_is_no_clean_text(raw: Value, message: str | None, context: dict[str, Any] | None) -> None:
    row = row_of_line(raw)
    assert message is None or row.message == message
    assert row.context == context
    row.message.encode()
    assert "\0" not in row.message and "\x1b" not in row.message


def test_fields_that_are_there_twice() -> None:
    assert row_of_line(b"x", PRIORITY=[b"4", b"6"]).level == "WARNING"
    assert row_of_line(b"x", _PID=[b"7", b"8"]).process_id == 7
    assert row_of_line(b"x", _SYSTEMD_USER_UNIT=[b"hivematrix-nexus.service", b"b"]).service_name == "nexus"


def test_a_pid_that_is_no_number() -> None:
    assert row_of_line(b"x", _PID="²".encode()).process_id is None
    assert row_of_line(b"x", _PID=b"1" * 20).process_id is None


def test_a_line_of_a_process_that_was_gone_has_its_identifier() -> None:
    fields = dict(entry(b"bye").fields)
    del fields["_SYSTEMD_USER_UNIT"]
    (row,) = rows_of([JournalEntry(fields, "", BOOT, 1, WHEN)])
    assert (row.service_name, row.unit, row.source) == ("core", None, "journal")
    assert row.context == {"_unverified": "service_name"}, "any process can print under this identifier"


def without_unit(message: bytes, **fields: Value) -> JournalEntry:
    whole = entry(message, **fields)
    return whole._replace(fields={name: value for name, value in whole.fields.items() if name != "_SYSTEMD_USER_UNIT"})


def test_a_line_without_a_unit_belongs_to_the_unit_of_its_stream() -> None:
    """The last lines of a service that ends, and those of its children: their process is gone before journald looks."""
    rows = rows_of([entry(b"up", _STREAM_ID=b"a1"), without_unit(b"down", _STREAM_ID=b"a1", _PID=b"43")])
    assert [(row.service_name, row.unit, row.context) for row in rows] == [
        ("core", "hivematrix-core.service", None)
    ] * 2


@pytest.mark.parametrize(("unit", "service"), [(b"hivematrix-nexus.service", "nexus"), (b"app-shell.scope", None)])
@pytest.mark.parametrize("transport", [b"stdout", b"journal"])
def test_a_stream_of_one_unit_gives_no_line_to_another(unit: bytes, service: str | None, transport: bytes) -> None:
    first = entry(b"mine", _STREAM_ID=b"b2", _SYSTEMD_USER_UNIT=unit)
    forged = without_unit(b"forged", _STREAM_ID=b"b2", SYSLOG_IDENTIFIER=b"hivematrix-core", _TRANSPORT=transport)
    rows = rows_of([first, forged, forged])
    assert [(row.service_name, row.message) for row in rows] == (
        [] if service is None else [(service, "mine"), (service, "forged"), (service, "forged")]
    )


def test_an_unfinished_line_of_an_earlier_version_is_taken_up() -> None:
    assembler = Assembler(FORMATS)
    assembler.take([entry(b"Traceback (most recent call last):"), entry(b'  File "/a.py", line 1, in f')])
    state = json.loads(json.dumps(assembler.state()))
    restored = Assembler(FORMATS, _without_last_writer_field(state))
    restored.take([entry(b"ValueError: no")])
    restored.finish_all()
    (row,) = restored.rows
    assert row.message.endswith("ValueError: no") and row.context == {"lines": 3}


def _without_last_writer_field(state: Any) -> Any:
    """Return what is kept of open lines, as it was before it said whether the service is verified."""
    if isinstance(state, list):
        if len(state) == 8 and state[:1] == ["core"] and isinstance(state[-1], bool):
            return state[:-1]
        return [_without_last_writer_field(each) for each in state]
    if isinstance(state, dict):
        return {key: _without_last_writer_field(value) for key, value in state.items()}
    return state


def test_lines_of_others_are_left_out() -> None:
    shell: dict[str, Value] = {"_SYSTEMD_USER_UNIT": b"shell.scope", "SYSLOG_IDENTIFIER": b"bash"}
    assert rows_of([entry(**shell), entry(**shell)]) == []


def test_a_process_keeps_its_own_host_and_unit() -> None:
    """Whose line it is is remembered by every field that says it."""
    notified = [
        entry(),
        entry(_HOSTNAME=b"renamed"),
        entry(_PID=b"43"),
        entry(_SYSTEMD_USER_UNIT=b"hivematrix-nexus.service"),
        entry(_SYSTEMD_USER_UNIT=b"helmd.service", SYSLOG_IDENTIFIER=b"python3"),
    ]
    found = [(row.service_name, row.hostname, row.process_id, row.stream) for row in rows_of(notified * 2)]
    assert (
        found
        == [
            ("core", "box", 42, "stdout"),
            ("core", "renamed", 42, "stdout"),
            ("core", "box", 43, "stdout"),
            ("nexus", "box", 42, "stdout"),
            ("helm", "box", 42, None),
        ]
        * 2
    )


def test_what_systemd_says_and_what_helm_does() -> None:
    said = entry(
        b"Started core.", _SYSTEMD_USER_UNIT=b"init.scope", SYSLOG_IDENTIFIER=b"systemd",
        USER_UNIT=b"hivematrix-core.service", _TRANSPORT=b"journal",
    )  # fmt: skip
    done = entry(
        b"core restarted", SYSLOG_IDENTIFIER=b"helmctl", HIVEMATRIX_ACTION=b"restart", HIVEMATRIX_SERVICE=b"core",
        _TRANSPORT=b"journal", _SYSTEMD_USER_UNIT=b"session.scope",
    )  # fmt: skip
    rows = rows_of([said, done])
    assert [(row.service_name, row.source, row.message) for row in rows] == [
        ("core", "systemd", "Started core."),
        ("helm", "journal", "core restarted"),
    ], "what helmctl did is not signed"


def test_what_helm_wrote_itself_goes_apart() -> None:
    posted = PostedRow(LogRow(datetime_of(WHEN), "nexus", "ERROR", "p", source="http"), str(UUID(int=5)), "key", 1)
    common: dict[str, Value] = {"_SYSTEMD_USER_UNIT": b"helmd.service", "_TRANSPORT": b"journal"}
    mine = {**posted_fields(posted, WHEN), **common}
    assembler = Assembler(FORMATS, own=OWN.read)
    assembler.take([JournalEntry(mine, "", BOOT, 1, WHEN)])
    assert (assembler.rows, assembler.posted) == ([], [posted])
    assembler.take([JournalEntry({**mine, "_SYSTEMD_USER_UNIT": b"hivematrix-core.service"}, "", BOOT, 1, WHEN)])
    assert [row.source for row in assembler.rows] == ["journal"]
    assert len(assembler.posted) == 1
    action = action_fields(str(UUID(int=6)), WHEN)
    assembler.take([JournalEntry({**action, "_TRANSPORT": b"journal"}, "", BOOT, 1, WHEN)])
    assert len(assembler.rows) == 1
    row = assembler.posted[1].row
    assert (row.service_name, row.source, row.message) == ("core", "helm", "restart core: done")
    assert row.context == {"action": "restart", "service": "core", "result": "done", "actor": "hive"}


def test_journalds_notice_that_lines_were_thrown_away() -> None:
    notice: dict[str, Value] = {
        "_TRANSPORT": b"driver",
        "_UID": b"0",
        "MESSAGE_ID": SUPPRESSED,
        "N_DROPPED": b"4711",
        "_HOSTNAME": b"box",
        "MESSAGE": b"Suppressed 4711 messages from user@1000.service",
    }
    assembler = Assembler(FORMATS)
    assembler.take([JournalEntry(notice, "", BOOT, 1, WHEN)])
    assembler.take([JournalEntry({**notice, "N_DROPPED": "²".encode()}, "", BOOT, 1, WHEN)])
    assert [(row.service_name, row.level, row.source) for row in assembler.rows] == [("helm", "WARNING", "helm")] * 2
    assert [(row.context or {})["count"] for row in assembler.rows] == [4711, None]
    assert "4,711 lines" in assembler.rows[0].message


def test_a_service_that_copies_the_notice_has_printed_a_line_and_no_more() -> None:
    row = row_of_line(b"Suppressed 9 messages", _TRANSPORT=b"journal", MESSAGE_ID=SUPPRESSED, N_DROPPED=b"9")
    assert (row.service_name, row.source, row.message) == ("core", "journal", "Suppressed 9 messages")


def test_tracebacks_of_two_writers_at_once() -> None:
    other: dict[str, Value] = {"_PID": b"43", "_SYSTEMD_USER_UNIT": b"hivematrix-nexus.service", "PRIORITY": b"5"}
    entries = []
    for number, text in enumerate(TRACEBACK):
        entries += [entry(text.encode(), number), entry(text.encode(), number, **other)]
    rows = rows_of([*entries, entry(b"INFO:app:after", 9)])
    assert [row.service_name for row in rows] == ["core", "core", "nexus"]
    core, after, nexus = rows
    assert core.message == nexus.message == "\n".join(TRACEBACK)
    assert (core.level, core.context, core.timestamp, core.stream) == (
        "ERROR",
        {"lines": 4},
        datetime_of(WHEN),
        "stdout",
    )
    assert after.message == "after" and nexus.stream == "stderr"


def test_a_coloured_traceback_is_one_without_its_colours() -> None:
    coloured = [f"\x1b[35m{text}\x1b[0m" for text in TRACEBACK]
    (row,) = rows_of([entry(text.encode(), n) for n, text in enumerate(coloured)])
    assert (row.message, row.level) == ("\n".join(TRACEBACK), "ERROR")


def test_an_error_waits_and_others_do_not() -> None:
    assembler = Assembler(FORMATS)
    assembler.take([entry(b"ERROR:app:broken"), entry(b"INFO:app:fine", _PID=b"43")])
    assert [row.message for row in assembler.rows] == ["fine"]
    assert len(assembler) == 1
    assembler.expire(WHEN)
    assert len(assembler) == 1
    assembler.expire(WHEN + 1)
    assert [row.message for row in assembler.rows] == ["fine", "broken"]
    assert (len(assembler), assembler.state()) == (0, None)


def split(raw: bytes, number: int = 0, size: int = PART, **fields: Value) -> list[JournalEntry]:
    """Return RAW as journald splits it."""
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    last = {"_LINE_BREAK": b"line-max"}
    return [entry(piece, number, **fields, **(last if n < len(pieces) else {})) for n, piece in enumerate(pieces, 1)]


@pytest.mark.parametrize("size", [7, 8, 9, 10])
def test_a_split_line_also_within_a_character(size: int) -> None:
    text = "größer: € \N{PILE OF POO} " * 3
    (row,) = rows_of(split(text.encode(), size=size))
    assert (row.message, row.context) == (text, None)


def test_a_json_line_of_a_megabyte_in_21_parts() -> None:
    raw = json.dumps({"level": "error", "message": "x" * 1_000_000}).encode()
    parts = split(raw)
    assert len(parts) == 21
    (row,) = rows_of([*parts[:9], entry(b"in between", _PID=b"9"), *parts[9:]])[1:]
    assert (row.level, len(row.message), row.context) == ("ERROR", 1_000_000, None)


def test_a_line_longer_than_what_is_kept_goes_on_in_another_entry() -> None:
    raw = b"x" * (MESSAGE_LIMIT + 100_000)
    rows = rows_of(split(raw))
    assert "".join(row.message for row in rows).encode() == raw
    assert [bool((row.context or {}).get("goes_on")) for row in rows] == [True, False]


def test_a_line_that_was_never_ended_is_stored_as_far_as_it_came() -> None:
    assembler = Assembler(FORMATS)
    assembler.take(split(b"abcdefgh", size=4)[:1])
    assert assembler.rows == [] and len(assembler) == 1
    assembler.expire(WHEN + 1)
    assert [(row.message, row.context) for row in assembler.rows] == [("abcd", {"goes_on": True})]


def test_an_error_split_in_parts_still_has_its_traceback() -> None:
    entries = [*split(b"ERROR:app:" + b"y" * 100, size=40), *(entry(text.encode(), 1) for text in TRACEBACK)]
    (row,) = rows_of(entries)
    assert row.message == "y" * 100 + "\n" + "\n".join(TRACEBACK)


def test_what_helm_prints_itself_has_its_own_level(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """journald takes ``<4>`` off and makes it the priority."""
    before = logging.root.handlers[:], logging.root.level
    try:
        log_to_stderr({"JOURNAL_STREAM": "8:1"})
        logging.getLogger("helmd").warning("the disk is full\nand so on")
        logging.getLogger("helmd").error("broken")
        logging.getLogger("helmd").info("fine")
    finally:
        logging.root.handlers[:], level = before
        logging.root.setLevel(level)
    printed = capsys.readouterr().err.splitlines()
    helm: dict[str, Value] = {"_SYSTEMD_USER_UNIT": b"helmd.service", "SYSLOG_IDENTIFIER": b"python3"}
    entries = [entry(text[3:].encode(), PRIORITY=text[1].encode(), **helm) for text in printed]
    assert [(row.service_name, row.level, row.message, row.stream) for row in rows_of(entries)] == [
        ("helm", "WARNING", "the disk is full", None),
        ("helm", "WARNING", "and so on", None),
        ("helm", "ERROR", "broken", None),
        ("helm", "INFO", "fine", None),
    ]


def test_more_writers_than_are_remembered() -> None:
    count = assembly._WRITERS + 900
    entries = [entry(f"{n}".encode(), n, _PID=f"{n}".encode(), _STREAM_ID=f"{n:032}".encode()) for n in range(1, count)]
    rows = rows_of([*entries, *entries[:10]])
    assert [row.message for row in rows] == [str(row.process_id) for row in rows]
    assert len(rows) == count + 9


@pytest.mark.parametrize(
    "state", [{"open": [[1]]}, {"open": 3, "splits": []}, {}, {"open": [[["a", 1, "b"], None, "x", 1, 2, [], True]]}]
)
def test_a_state_that_is_none_is_refused(state: dict[str, Any]) -> None:
    if not state:
        assert Assembler(FORMATS, state).state() is None
        return
    with pytest.raises((ValueError, TypeError)):
        Assembler(FORMATS, state)


_TEXTS = st.sampled_from(
    [
        *TRACEBACK,
        "ERROR:app:it broke",
        "INFO:app:fine",
        '{"level": "ERROR", "message": "json"}',
        "  indented",
        "\x1b[31mERROR\x1b[0m: red",
        "java.lang.IllegalStateException: no",
        "\tat a.B.c(B.java:1)",
        "[12] a@b ERROR:  bad",
        "[12] a@b DETAIL:  very",
        "plain",
        "nul \0",
    ]
)
_WRITERS = st.integers(0, 3)
_BREAKS = st.sampled_from([b"", b"", b"", b"line-max", b"nul", b"eof"])


def _written(step: tuple[str, int, bytes], number: int) -> JournalEntry:
    text, writer, line_break = step
    fields: dict[str, Value] = {"_PID": f"{100 + writer // 2}".encode(), "_STREAM_ID": b"%032d" % writer}
    if line_break:
        fields["_LINE_BREAK"] = line_break
    return entry(text.encode(), number, **fields)


def _all(entries: Sequence[JournalEntry], every: int, gone: Sequence[int] = ()) -> list[LogRow]:
    """Return the rows, with a restart before every EVERYth entry."""
    assembler, rows = Assembler(FORMATS), []
    for number, each in enumerate(entries):
        if number in gone:
            assembler.expire(each.realtime - 2_000)
        if every and number % every == 0:
            rows += assembler.rows
            state = assembler.state()
            assembler = Assembler(FORMATS, json.loads(json.dumps(state)) if state else None)
        assembler.take([each])
    assembler.finish_all()
    return [*rows, *assembler.rows]


@settings(deadline=None)
@given(
    st.lists(st.tuples(_TEXTS, _WRITERS, _BREAKS), max_size=40),
    st.integers(1, 5),
    st.lists(st.integers(0, 40), max_size=3),
)
def test_a_restart_anywhere_changes_nothing(steps: list[tuple[str, int, bytes]], every: int, gone: list[int]) -> None:
    entries = [_written(step, number) for number, step in enumerate(steps)]
    plain = _all(entries, 0, gone)
    assert _all(entries, every, gone) == plain
    taken = Assembler(FORMATS)
    if not gone:
        taken.take(entries)
        taken.finish_all()
        assert taken.rows == plain


def test_a_pattern_of_a_users_gets_each_whole_line_once() -> None:
    """Formats of one's own apply to lines that were put together, too."""
    source = '[formats.mine]\norder = 1\nfirst = "@"\npattern = "@(?P<level>[a-z]+) (?P<message>.*)"\n'
    assembler = Assembler(read_formats([ConfigSource("formats.toml", source)]))
    assembler.take(split(b"@error it is long", size=5))
    assembler.finish_all()
    assert [(row.level, row.message) for row in assembler.rows] == [("ERROR", "it is long")]


def test_what_is_written_down_does_not_change_with_later_lines() -> None:
    """It is stored while the next lines are read: what it held too much came twice after a restart."""
    assembler = Assembler(FORMATS)
    assembler.take([entry(TRACEBACK[0].encode()), *split(b"abcd", size=2, _PID=b"9")[:1]])
    state = assembler.state()
    before = json.dumps(state)
    assembler.take([entry(TRACEBACK[1].encode(), 1), entry(b"cd", 2, _PID=b"9", _LINE_BREAK=b"line-max")])
    assert json.dumps(state) == before


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ('127.0.0.1 - - [28/Nov/2026:07:12:46 +0000] "GET /up HTTP/1.0" 503 12 "-" "HiveMatrix-Helm/health"', "DEBUG"),
        ('[::1] - - [28/Nov/2026:07:12:46 +0000] "GET /ready HTTP/1.0" 500 12 "-" "HiveMatrix-Helm/health"', "DEBUG"),
        ('{"level": "error", "method": "GET", "status": 503, "user_agent": "HiveMatrix-Helm/health"}', "DEBUG"),
        # Without a User-Agent: werkzeug and http.server, uvicorn.
        ('127.0.0.1 - - [28/Nov/2026 07:12:46] "GET /up HTTP/1.0" 503 -', "DEBUG"),
        ('INFO:     127.0.0.1:54321 - "GET /up HTTP/1.0" 503 Service Unavailable', "DEBUG"),
        # werkzeug again, on what it takes for a terminal.
        ('INFO:werkzeug:127.0.0.1 - - [28/Nov/2026 07:12:46] "\x1b[35m\x1b[1mGET /up HTTP/1.0\x1b[0m" 503 -', "DEBUG"),
        ('127.0.0.1 - - [28/Nov/2026 07:12:46] "\x1b[33mGET /ready HTTP/1.0\x1b[0m" 404 -', "DEBUG"),
        ('127.0.0.1 - - [28/Nov/2026 07:12:46] "\x1b[35m\x1b[1mGET /up HTTP/1.1\x1b[0m" 503 -', "ERROR"),
        ('{"remote": "127.0.0.1", "request": "GET /up HTTP/1.0", "status": 503}', "DEBUG"),
        ('{"client_ip": "::1", "proto": "HTTP/1.0", "method": "GET", "uri": "/ready", "status": 500}', "DEBUG"),
        ('{"client_ip": "127.0.0.1", "proto": "HTTP/1.1", "method": "GET", "uri": "/up", "status": 503}', "ERROR"),
        ('{"client_ip": "127.0.0.1", "proto": "HTTP/1.0", "method": "POST", "uri": "/up", "status": 503}', "ERROR"),
        ('{"client_ip": "10.0.0.9", "proto": "HTTP/1.0", "method": "GET", "uri": "/up", "status": 503}', "ERROR"),
        # Others' requests, and what only speaks of such a request.
        ('127.0.0.1 - - [28/Nov/2026 07:12:46] "GET /up HTTP/1.1" 503 -', "ERROR"),
        ('127.0.0.1 - - [28/Nov/2026 07:12:46] "GET /upload HTTP/1.0" 503 -', "ERROR"),
        ('10.0.0.9 - - [28/Nov/2026 07:12:46] "GET /up HTTP/1.0" 503 -', "ERROR"),
        ('127.0.0.1 - - [28/Nov/2026:07:12:46 +0000] "GET /up HTTP/1.1" 503 12 "-" "curl/8.1"', "ERROR"),
        ("ERROR: do not know the agent HiveMatrix-Helm/health", "ERROR"),
    ],
    ids=str,
)
def test_helms_own_health_checks_are_no_errors(line: str, level: str) -> None:
    assembler = Assembler(FORMATS, health_paths={"core": ("/up", "/ready")}.__getitem__)
    assembler.take([entry(line.encode())])
    assembler.finish_all()
    assert [row.level for row in assembler.rows] == [level]
