"""Journal entries that Helm wrote itself, signed with a key of the tests."""

from collections.abc import Mapping

from helmd.model.ingest.journal_codec import fields_of
from helmd.model.ingest.own_entries import OwnEntries, PostedRow
from helmd.model.ingest.signature import REQUEST, SigningKey, signed
from helmd.model.logs.parsing.journal_fields import JournalEntry, Value

BOOT = "b" * 32
KEY = SigningKey(0, b"the tests' own key, of 32 bytes.")
DAYS = 90
OWN = OwnEntries(lambda: [KEY], lambda _: DAYS)


def posted_fields(posted: PostedRow, written: int, key: SigningKey = KEY) -> dict[str, Value]:
    """Return the signed fields of a posted entry, written at WRITTEN (microseconds since 1970)."""
    return {**signed(fields_of(posted), key, written)}


def action_fields(request: str, written: int, key: SigningKey = KEY, **fields: str) -> dict[str, Value]:
    """Return the signed fields of the record of a restart of core."""
    given = {
        "MESSAGE": "restart core: done",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "helmctl",
        "HIVEMATRIX_ACTION": "restart",
        "HIVEMATRIX_SERVICE": "core",
        "HIVEMATRIX_RESULT": "done",
        "HIVEMATRIX_ACTOR": "hive",
        "USER_UNIT": "hivematrix-core.service",
        REQUEST: request,
    }
    return {**signed({**given, **fields}, key, written)}


def read_own(fields: Mapping[str, Value], realtime: int, own: OwnEntries = OWN) -> PostedRow | None:
    """Return what Helm reads from an entry of FIELDS that journald received at REALTIME."""
    return own.read(JournalEntry(fields, "s=1", BOOT, 1, realtime))
