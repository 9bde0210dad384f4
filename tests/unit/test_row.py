"""Journal fields to rows of the log store."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.logs.entry import MESSAGE_LIMIT, LogRow
from helmd.model.logs.parsing.journal_fields import JournalEntry, Value, action_row, gap_row, row_of
from helmd.model.logs.parsing.position import Gap, Missing, parse_cursor

BOOT = "b" * 32
WHEN = 1_700_000_000_123_456


def entry(**fields: Value) -> JournalEntry:
    return JournalEntry(fields, "s=1", BOOT, 5, WHEN)


def row(**fields: Value) -> LogRow:
    printed: dict[str, Value] = {
        "_SYSTEMD_USER_UNIT": b"hivematrix-core.service",
        "SYSLOG_IDENTIFIER": b"hivematrix-core",
        "_TRANSPORT": b"stdout",
        "PRIORITY": b"6",
        "_PID": b"42",
        "_HOSTNAME": b"box",
        "MESSAGE": b"hello",
    }
    found = row_of(entry(**{**printed, **fields}))
    assert found is not None
    return found


def test_a_printed_line() -> None:
    assert row() == LogRow(
        timestamp=datetime(2023, 11, 14, 22, 13, 20, 123456, UTC),
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


@pytest.mark.parametrize(
    ("fields", "service", "source"),
    [
        ({"_SYSTEMD_USER_UNIT": b"hivematrix-nexus.service"}, "nexus", "journal"),
        ({"_SYSTEMD_USER_UNIT": b"helmd-journal.service"}, "helm", "journal"),
        ({"SYSLOG_IDENTIFIER": b"hivematrix-ledger"}, "ledger", "journal"),
        ({"_SYSTEMD_USER_UNIT": b"other.service", "SYSLOG_IDENTIFIER": b"hivematrix-ledger"}, None, None),
        ({"_SYSTEMD_USER_UNIT": b"init.scope", "USER_UNIT": b"hivematrix-core.service"}, "core", "systemd"),
        ({"USER_UNIT": b"other.service"}, None, None),
        ({"_SYSTEMD_USER_UNIT": b"app.service", "USER_UNIT": b"hivematrix-core.service"}, None, None),
        ({"_SYSTEMD_USER_UNIT": b"hivematrix-a.service", "USER_UNIT": b"hivematrix-b.service"}, "a", "journal"),
        ({"USER_UNIT": b"hivematrix-core.service"}, "core", "journal"),
        ({"SYSLOG_IDENTIFIER": b"helmctl", "HIVEMATRIX_ACTION": b"start"}, "helm", "journal"),
        (
            {"SYSLOG_IDENTIFIER": b"helmctl", "HIVEMATRIX_ACTION": b"start", "HIVEMATRIX_SERVICE": b"core"},
            "helm",
            "journal",
        ),
        ({"SYSLOG_IDENTIFIER": b"bash", "HIVEMATRIX_ACTION": b"start"}, None, None),
        ({}, None, None),
        ({"_SYSTEMD_USER_UNIT": b"hivematrix-\xff.service"}, None, None),
    ],
)
def test_whose_line_it_is(fields: Mapping[str, Value], service: str | None, source: str | None) -> None:
    found = row_of(entry(**fields))
    assert (found and found.service_name, found and found.source) == (service, source)


@pytest.mark.parametrize(
    ("fields", "verified"),
    [
        ({"_SYSTEMD_USER_UNIT": b"hivematrix-core.service"}, True),
        ({"_SYSTEMD_USER_UNIT": b"hivematrix-core.service", "USER_UNIT": b"hivematrix-nexus.service"}, True),
        ({"_SYSTEMD_USER_UNIT": b"init.scope", "USER_UNIT": b"hivematrix-core.service"}, True),
        ({"SYSLOG_IDENTIFIER": b"hivematrix-core"}, False),
        ({"SYSLOG_IDENTIFIER": b"hivematrix-core", "_TRANSPORT": b"journal"}, False),
        ({"USER_UNIT": b"hivematrix-core.service", "_TRANSPORT": b"journal"}, False),
        ({"SYSLOG_IDENTIFIER": b"helmctl", "HIVEMATRIX_ACTION": b"start"}, False),
    ],
)
def test_a_service_that_only_the_program_names_is_marked(fields: Mapping[str, Value], verified: bool) -> None:
    found = row_of(entry(**fields))
    assert found is not None
    assert ("_unverified" not in (found.context or {})) == verified
    assert verified or (found.context or {})["_unverified"] == "service_name"


@pytest.mark.parametrize(
    ("priority", "level", "stream"),
    [
        (b"0", "CRITICAL", None),
        (b"2", "CRITICAL", None),
        (b"3", "ERROR", None),
        (b"4", "WARNING", None),
        (b"5", "INFO", "stderr"),
        (b"6", "INFO", "stdout"),
        (b"7", "DEBUG", None),
        (b"66", "INFO", None),
        (b"", "INFO", None),
    ],
)
def test_level_and_stream_by_priority(priority: bytes, level: str, stream: str | None) -> None:
    found = row(PRIORITY=priority)
    assert (found.level, found.stream) == (level, stream)


def test_a_stream_is_only_claimed_where_systemd_cat_states_it() -> None:
    assert row(SYSLOG_IDENTIFIER=b"python3").stream is None
    assert row(_TRANSPORT=b"journal").stream is None


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        ("größe \u2028 \N{PILE OF POO}".encode(), "größe \u2028 \N{PILE OF POO}"),
        (b"bad \xff\xfe end", "bad \ufffd\ufffd end"),
        (b"nul \0 end", "nul \ufffd end"),
        (b"half a pair \xed\xa0\x80", "half a pair \ufffd\ufffd\ufffd"),
    ],
)
def test_what_the_store_cannot_hold_is_replaced_and_noted(raw: bytes, text: str) -> None:
    found = row(MESSAGE=raw)
    assert found.message == text
    assert found.context == ({"bytes_replaced": True} if "\ufffd" in text else None)


def test_a_long_message_is_cut_between_characters_and_noted() -> None:
    found = row(MESSAGE="ä".encode() * MESSAGE_LIMIT)
    assert found.message == "ä" * (MESSAGE_LIMIT // 2)
    odd = row(MESSAGE=b"x" + "ä".encode() * MESSAGE_LIMIT)
    assert odd.message == "x" + "ä" * (MESSAGE_LIMIT // 2 - 1)
    assert odd.context == {"cut_at_bytes": MESSAGE_LIMIT}
    assert row(MESSAGE=b"x" * MESSAGE_LIMIT).context is None


def test_several_messages_and_split_lines() -> None:
    assert row(MESSAGE=[b"one", b"two"]).message == "one\ntwo"
    assert row(_LINE_BREAK=b"line-max").context == {"line_break": "line-max"}
    assert row_of(entry(_SYSTEMD_USER_UNIT=b"helmd.service")) is not None


def test_an_action_of_helm_keeps_its_fields() -> None:
    found = action_row(
        entry(
            SYSLOG_IDENTIFIER=b"helmctl",
            HIVEMATRIX_SERVICE=b"core",
            HIVEMATRIX_ACTION=b"restart",
            HIVEMATRIX_RESULT=b"done",
            HIVEMATRIX_REASON=b"new \0 version",
            HIVEMATRIX_ACTOR=b"uid 1000",
            MESSAGE=b"core restarted",
            PRIORITY=b"5",
        )
    )
    assert (found.service_name, found.source) == ("core", "helm")
    assert action_row(entry(HIVEMATRIX_ACTION=b"start", HIVEMATRIX_SERVICE=b"../x")).service_name == "helm"
    assert found.context == {
        "service": "core",
        "action": "restart",
        "result": "done",
        "reason": "new \ufffd version",
        "actor": "uid 1000",
    }


def test_what_systemd_says_of_a_unit_keeps_the_exit_status() -> None:
    found = row_of(
        entry(
            _SYSTEMD_USER_UNIT=b"init.scope",
            USER_UNIT=b"hivematrix-core.service",
            _TRANSPORT=b"journal",
            SYSLOG_IDENTIFIER=b"systemd",
            EXIT_CODE=b"exited",
            EXIT_STATUS=b"1",
            PRIORITY=b"5",
            MESSAGE=b"Main process exited",
        )
    )
    assert found is not None
    assert (found.unit, found.stream) == ("hivematrix-core.service", None)
    assert found.context == {"exit_code": "exited", "exit_status": "1"}


def test_a_gap_says_from_when_to_when_and_how_many() -> None:
    notified = gap_row(Gap(WHEN, WHEN + 2_000_000, Missing.LOST, 7101), "box")
    assert (notified.service_name, notified.level, notified.source, notified.hostname) == (
        "helm",
        "WARNING",
        "helm",
        "box",
    )
    assert "2023-11-14T22:13:20.123456+00:00" in notified.message
    assert "2023-11-14T22:13:22.123456+00:00" in notified.message
    assert "at most 7,101 lines" in notified.message
    assert "unknown number" in gap_row(Gap(WHEN, WHEN, Missing.UNREADABLE), "box").message


def test_parts_of_a_cursor() -> None:
    found = parse_cursor("s=8fd4;i=1f;b=1111;m=f4240;t=60a2;x=13da")
    assert found is not None
    assert (found.seqnum_id, found.seqnum, found.xor_hash) == ("8fd4", 31, "13da")
    assert parse_cursor("") is None
    assert parse_cursor("s=1;i=zz;x=1") is None


@given(
    st.dictionaries(
        st.sampled_from(
            ["MESSAGE", "PRIORITY", "_PID", "_HOSTNAME", "SYSLOG_IDENTIFIER", "USER_UNIT", "_LINE_BREAK", "EXTRA"]
        ),
        st.binary(max_size=40) | st.lists(st.binary(max_size=10), min_size=1, max_size=3),
    ),
    st.integers(0, 2**64 - 1),
)
def test_any_fields_make_a_row_that_postgresql_can_hold(fields: dict[str, Value], realtime: int) -> None:
    mine: dict[str, Value] = {**fields, "_SYSTEMD_USER_UNIT": b"hivematrix-core.service", "_TRANSPORT": b"journal"}
    found = row_of(JournalEntry(mine, "c", BOOT, 1, realtime))
    assert found is not None
    texts = [found.message, found.hostname or "", *map(str, (found.context or {}).values())]
    for text in texts:
        assert "\0" not in text
        text.encode()
    assert found.timestamp.year <= 9999
    assert found.process_id is None or 0 <= found.process_id < 2**31
