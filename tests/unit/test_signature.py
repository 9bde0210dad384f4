"""Signatures of what Helm itself writes to the journal: what is believed, and what is not."""

import hmac
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from helmd.model.ingest.journal_codec import fields_of
from helmd.model.ingest.own_entries import OwnEntries, PostedRow
from helmd.model.ingest.signature import SigningKey, is_authentic, signed
from helmd.model.logs.entry import HTTP, LogRow
from helmd.model.logs.parsing.journal_fields import Value
from helmd.model.suite.names import HMAC_FIELD
from tests.signing import DAYS, KEY, action_fields, posted_fields, read_own

NOW = 1_700_000_000_000_000
HOUR = 3_600_000_000
REQUEST = str(UUID(int=7))
ROW = LogRow(datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "codex", "ERROR", "a message", {"a": 1}, source=HTTP)
POSTED = PostedRow(ROW, REQUEST, "key", 3, 1)

Fields = dict[str, Value]


def test_what_helm_signed_is_read_back() -> None:
    assert read_own(posted_fields(POSTED, NOW), NOW + 5) == POSTED
    found = read_own(action_fields(REQUEST, NOW), NOW + 5)
    assert found is not None
    assert (found.row.service_name, found.row.source, found.request, found.entries) == ("core", "helm", REQUEST, 1)


@pytest.mark.parametrize("size", [0, 1, 32, 63, 64, 65, 200])
def test_it_is_the_hmac_of_the_standard_library(size: int) -> None:
    """For keys of any length, those that are hashed first among them (RFC 2104, section 2)."""
    secret = random.Random(size).randbytes(size)
    values = signed({"MESSAGE": "ä" * 10_000, "HIVEMATRIX_ACTION": "stop", "PRIORITY": ""}, SigningKey(0, secret), NOW)
    given = values.pop(HMAC_FIELD).decode()
    text = b"".join(f"{name}={len(values[name])}\n".encode() + values[name] for name in sorted(values))
    assert given == hmac.new(secret, text, "sha256").hexdigest()


def changed(name: str, value: Value) -> Callable[[Fields], Fields]:
    return lambda fields: {**fields, name: value}


FORGERIES: dict[str, Callable[[Fields], Fields]] = {
    "no signature": lambda fields: {name: value for name, value in fields.items() if name != HMAC_FIELD},
    "truncated": lambda fields: {**fields, HMAC_FIELD: fields[HMAC_FIELD][:63]},
    "truncated to nothing": changed(HMAC_FIELD, b""),
    "two signatures": lambda fields: {**fields, HMAC_FIELD: [fields[HMAC_FIELD], b"0" * 64]},  # type: ignore[list-item]
    "another signature": changed(HMAC_FIELD, b"0" * 64),
    "not hexadecimal": changed(HMAC_FIELD, b"\xff" * 64),
    "another message": changed("MESSAGE", b"another message"),
    "two messages": changed("MESSAGE", [b"a message", b"another"]),
    "another service": changed("HIVEMATRIX_SERVICE", b"core"),
    "another level": changed("HIVEMATRIX_LEVEL", b"CRITICAL"),
    "another time": changed("HIVEMATRIX_TIMESTAMP", b"2023-11-14T22:13:21+00:00"),
    "another request": changed("HIVEMATRIX_REQUEST", str(UUID(int=8)).encode()),
    "another number": changed("HIVEMATRIX_NUMBER", b"2"),
    "a time of writing that is later": changed("HIVEMATRIX_WRITTEN", str(NOW + 1).encode()),
    "a field more": changed("HIVEMATRIX_USER_ID", b"root"),
    "an action": changed("HIVEMATRIX_ACTION", b"stop"),
    "a field less": lambda fields: {name: value for name, value in fields.items() if name != "HIVEMATRIX_KEY"},
    "of a service": changed("_SYSTEMD_USER_UNIT", b"hivematrix-codex.service"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_was_changed_is_not_believed(forgery: str) -> None:
    fields = {**posted_fields(POSTED, NOW), "_SYSTEMD_USER_UNIT": b"helmd.service"}
    assert read_own(fields, NOW) == POSTED
    assert read_own(FORGERIES[forgery](fields), NOW) is None


def test_the_signature_covers_which_bytes_belong_to_which_field() -> None:
    one = signed({"MESSAGE": "ab", "HIVEMATRIX_SERVICE": "c"}, KEY, NOW)
    moved: Fields = {**one, "MESSAGE": b"a", "HIVEMATRIX_SERVICE": b"bc"}
    assert is_authentic({**one}, NOW, [KEY])
    assert not is_authentic(moved, NOW, [KEY])
    assert not is_authentic({**one}, NOW, []), "without a key nothing is"


def test_random_changes_are_not_believed() -> None:
    chance = random.Random(5)
    fields = posted_fields(POSTED, NOW)
    for _ in range(2000):
        name = chance.choice(list(fields))
        raw = bytearray(fields[name])  # type: ignore[arg-type]
        raw[chance.randrange(len(raw))] ^= chance.randrange(1, 256)
        assert read_own({**fields, name: bytes(raw)}, NOW) is None


def test_a_field_of_no_value_may_be_left_out_by_journald() -> None:
    fields = posted_fields(PostedRow(ROW._replace(message=""), REQUEST), NOW)
    assert "MESSAGE" not in fields
    assert read_own({**fields, "MESSAGE": b""}, NOW) == read_own(fields, NOW) is not None


def test_a_copy_that_is_sent_later_is_not_believed() -> None:
    fields = posted_fields(POSTED, NOW)
    assert read_own(fields, NOW + HOUR) is not None
    assert read_own(fields, NOW + HOUR + 1) is None
    assert read_own(fields, NOW - HOUR - 1) is None


def test_a_replaced_key_verifies_until_its_entries_are_past() -> None:
    old, new = SigningKey(NOW - HOUR, b"o" * 32), SigningKey(NOW, b"n" * 32)
    own = OwnEntries(lambda: [old, new], lambda _: DAYS)
    minute = 60_000_000
    assert read_own(posted_fields(POSTED, NOW - minute, old), NOW - minute, own) == POSTED
    assert read_own(posted_fields(POSTED, NOW, old), NOW + minute, own) == POSTED, "a writer may have read it before"
    assert read_own(posted_fields(POSTED, NOW + minute, old), NOW + minute + 1, own) is None
    assert read_own(posted_fields(POSTED, NOW + HOUR, new), NOW + HOUR, own) == POSTED
    assert read_own(posted_fields(POSTED, NOW, SigningKey(0, b"x" * 32)), NOW, own) is None


def test_unsigned_posted_entries_of_earlier_versions() -> None:
    """They are of helmd.service, and older than the first key."""
    fields: Fields = {name: value.encode() for name, value in fields_of(POSTED).items()}
    mine: Fields = {**fields, "_SYSTEMD_USER_UNIT": b"helmd.service"}
    later = OwnEntries(lambda: [SigningKey(NOW, b"k" * 32)], lambda _: DAYS)
    assert read_own(mine, NOW - 1, later) == POSTED
    assert read_own(mine, NOW, later) is None
    assert read_own(fields, NOW - 1, later) is None, "without a unit"
    assert read_own({**mine, "_SYSTEMD_USER_UNIT": b"app.scope"}, NOW - 1, later) is None
    assert read_own(mine, NOW, OwnEntries(list, lambda _: DAYS)) == POSTED
    action = {name: value for name, value in action_fields(REQUEST, NOW).items() if name != HMAC_FIELD}
    assert read_own({**action, "_SYSTEMD_USER_UNIT": b"helmd.service"}, NOW - 1, later) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HIVEMATRIX_TIMESTAMP", "2023-11-14T22:13:20"),
        ("HIVEMATRIX_TIMESTAMP", "9999-12-31T23:59:59-23:59"),
        ("HIVEMATRIX_TIMESTAMP", "0001-01-01T00:00:00+23:59"),
        ("HIVEMATRIX_TIMESTAMP", "yesterday"),
        ("HIVEMATRIX_CONTEXT", "[" * 100_000),
        ("HIVEMATRIX_CONTEXT", '{"a":' * 100_000),
        ("HIVEMATRIX_CONTEXT", '{"a": "\\u0000\\ud800"}'),
        ("HIVEMATRIX_CONTEXT", '{"a": ' + "9" * 5000 + "}"),
        ("HIVEMATRIX_CONTEXT", '{"a": 1e999}'),
        ("HIVEMATRIX_PROCESS_ID", "9" * 5000),
        ("HIVEMATRIX_PROCESS_ID", "²"),
        ("HIVEMATRIX_PROCESS_ID", "-1"),
        ("HIVEMATRIX_TRACE_ID", "t" * 100_000),
        ("HIVEMATRIX_LEVEL", "LOUD"),
        ("MESSAGE", "nul \0 and more"),
        ("MESSAGE", "m" * 3_000_000),
    ],
    ids=lambda text: text[:30].replace("\0", "NUL"),
)
def test_odd_values_are_read_as_a_body_is(name: str, value: str) -> None:
    """Some of these once raised errors in helmd-journal, at every attempt to read the entry."""
    fields = {**fields_of(PostedRow(ROW._replace(context=None), REQUEST)), name: value}
    found = read_own({**signed(fields, KEY, NOW)}, NOW)
    assert found is not None
    row = found.row
    assert row.timestamp.tzinfo is not None and abs(row.timestamp - ROW.timestamp) < timedelta(minutes=1)
    assert row.process_id is None or row.process_id < 2**31
    assert "\0" not in row.message and len(row.message.encode()) <= 1 << 20
    assert len(row.trace_id or "") <= 2048


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HIVEMATRIX_SERVICE", "x" * 51),
        ("HIVEMATRIX_SERVICE", "../x"),
        ("HIVEMATRIX_REQUEST", "none"),
        ("HIVEMATRIX_ENTRIES", "9" * 5000),
        ("HIVEMATRIX_NUMBER", "3"),
        ("HIVEMATRIX_KEY", "k" * 256),
        ("HIVEMATRIX_KEY", "k\n"),
    ],
)
def test_what_no_version_writes_is_a_line_like_others(name: str, value: str) -> None:
    assert read_own({**signed({**fields_of(POSTED), name: value}, KEY, NOW)}, NOW) is None
