"""Signatures of what Helm itself writes to the journal: posted entries while the store is unavailable, and records of
actions.

Every process of the account can write any field that does not begin with an underscore (systemd.journal-fields(7)), and
can read the entries of all others. So a signature covers all of Helm's fields, the time of writing, and the id of the
batch or action (``HIVEMATRIX_REQUEST``). The store remembers that id, so a copy of an entry is not stored again.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from helmd.model.suite.names import HMAC_FIELD

if TYPE_CHECKING:
    # Imported for helmctl in a tenth of the time.
    from helmd.model.logs.parsing.journal_fields import Value

_PREFIX = "HIVEMATRIX_"
REQUEST = f"{_PREFIX}REQUEST"
"""The id of an action or of a posted batch, a UUID."""
WRITTEN = f"{_PREFIX}WRITTEN"
"""The writer's clock, in microseconds since 1970."""

_STANDARD = frozenset({"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "USER_UNIT"})
"""Fields that Helm writes and that do not begin with HIVEMATRIX_."""
FRESH = 3_600_000_000
"""Maximum microseconds between writing and journald's receipt. The store need not remember ids for much longer."""
_OVERLAP = 60_000_000
"""Microseconds for which a key still verifies after the next one was added: a writer may have read the file before."""
_MOST_FIELDS, _MOST_BYTES = 64, 32 << 20
"""Limits that Helm never exceeds; more is not hashed."""
_HEXADECIMAL = re.compile(rb"[0-9a-f]{64}\Z")
_DECIMAL = re.compile(rb"[0-9]{1,18}\Z")


class SigningKey(NamedTuple):
    """A secret, and since when it is used, in microseconds since 1970."""

    since: int
    secret: bytes


def signed(fields: Mapping[str, str], key: SigningKey, now: int) -> dict[str, bytes]:
    """Return FIELDS with their signature, written NOW (microseconds since 1970), without empty values."""
    values = encoded({**fields, WRITTEN: str(now)})
    values[HMAC_FIELD] = _signature(values, key.secret)
    return values


def encoded(fields: Mapping[str, str]) -> dict[str, bytes]:
    """Return FIELDS as bytes, without empty ones. Lone surrogates (an argument that is not UTF-8) are replaced."""
    return {name: value.encode("utf-8", "replace") for name, value in fields.items() if value}


def is_authentic(fields: "Mapping[str, Value]", realtime: int, keys: Sequence[SigningKey]) -> bool:
    """Return whether Helm wrote an entry that journald received at REALTIME. KEYS are all keys, oldest first."""
    given = fields.get(HMAC_FIELD)
    if not isinstance(given, bytes) or not _HEXADECIMAL.match(given):
        return False
    values: dict[str, bytes] = {}
    for name, value in fields.items():
        if name in _STANDARD or (name.startswith(_PREFIX) and name != HMAC_FIELD):
            if not isinstance(value, bytes):  # a field that is there twice
                return False
            values[name] = value
    written = values.get(WRITTEN, b"")
    if not _DECIMAL.match(written) or abs(realtime - int(written)) > FRESH:
        return False
    if len(values) > _MOST_FIELDS or sum(map(len, values.values())) > _MOST_BYTES:
        return False
    import hmac  # see _signature

    return any(hmac.compare_digest(given, _signature(values, key.secret)) for key in _valid_at(realtime, keys))


def _valid_at(realtime: int, keys: Sequence[SigningKey]) -> list[SigningKey]:
    """Return the keys that can have signed an entry of REALTIME, without those replaced before it."""
    ends = [key.since + _OVERLAP for key in keys[1:]]
    return [key for key, end in zip(keys, [*ends, realtime], strict=False) if realtime <= end]


def _signature(values: Mapping[str, bytes], secret: bytes) -> bytes:
    """Return the HMAC of names, lengths and values: with lengths, different fields never give the same text."""
    # Loads OpenSSL (5 ms), which helmctl need not do before there is a record to sign.
    import hmac

    code = hmac.new(secret, digestmod="sha256")
    for name in sorted(values):
        if value := values[name]:
            code.update(f"{name}={len(value)}\n".encode())
            code.update(value)
    return code.hexdigest().encode()
