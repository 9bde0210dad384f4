"""Comparing the times that log lines state themselves with the journal's, which no program can set."""

import re
from datetime import UTC, datetime
from functools import lru_cache

from helmd.model.logs.entry import datetime_of

_MONTHS = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)  # noqa: SIM905
}
_CLOSE = 2_000_000
"""Maximum difference of equal times. All times here are in microseconds."""
_ZONE_STEP = 15 * 60 * 1_000_000
"""The offsets of all time zones are multiples of this."""
_ZONE_FARTHEST = 14 * 60 * 60 * 1_000_000
"""The largest offset of a time zone from UTC."""
_EPOCH_UNITS = ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1))
"""Units of a number since 1970, in microseconds, by its exclusive upper limit; larger numbers are nanoseconds."""


_REST = re.compile(r"(?:[.,][0-9]{1,9})?(?:Z|\+00:00)?\Z")
"""The rest of an ISO 8601 time after the second, in UTC or without a zone."""


@lru_cache(maxsize=16)
def _second(since: int) -> tuple[str, str]:
    """Return a second (since 1970, UTC) in ISO 8601 with "T", and with a space."""
    written = datetime_of(since * 1_000_000).isoformat()[:19]
    return written, written.replace("T", " ")


def is_same_time(stated: object, realtime: int) -> bool:
    """Return whether STATED, the time in a line's text, is REALTIME (microseconds since 1970) to within two seconds.

    A time without a zone is a local time; it is the same if there is a zone in which it would be. False if STATED is
    not a time.
    """
    aware = True
    off: float
    if isinstance(stated, str):
        # Most programs state the same second as the journal, in UTC, and this is the cheapest test.
        if stated[:19] in _second(realtime // 1_000_000) and _REST.match(stated, 19) is not None:
            return True
        try:
            instant = datetime.fromisoformat(stated)
        except ValueError:
            other = _other_form(stated)
            if other is None:
                return False
            instant = other
        if instant.tzinfo is None:
            instant, aware = instant.replace(tzinfo=UTC), False
        # A float is exact to the microsecond for some more centuries.
        off = abs(instant.timestamp() * 1_000_000 - realtime)
    elif isinstance(stated, int | float) and not isinstance(stated, bool) and 0 < stated < 1e20:
        off = abs(_since_epoch(stated) - realtime)
    else:
        return False
    if off <= _CLOSE:
        return True
    if aware or off > _ZONE_FARTHEST + _CLOSE:
        return False
    beyond = off % _ZONE_STEP
    return beyond <= _CLOSE or beyond >= _ZONE_STEP - _CLOSE


def _since_epoch(count: int | float) -> int:
    for below, unit in _EPOCH_UNITS:
        if count < below:
            return int(count * unit)
    return int(count // 1000)


@lru_cache(maxsize=64)  # access logs have no fractions of seconds, so the same time occurs often
def _other_form(text: str) -> datetime | None:
    """Parse ``23/Nov/2026:06:12:46 +0000``, ``23/Nov/2026 06:10:38``, ``23 Nov 2026 06:10:34.258``, and ISO 8601 with a
    space or a zone's name at its end. Return None for other forms.
    """
    if len(text) < 19 or len(text) > 40:
        return None
    try:
        month = _MONTHS.get(text[3:6])
        iso = f"{text[7:11]}-{month:02}-{text[:2]}T{text[12:]}" if month else text.replace("/", "-", 2)
        for name in (" UTC", " GMT"):
            iso = iso.replace(name, "Z")
        return datetime.fromisoformat(iso.replace(" +", "+").replace(" -", "-"))
    except ValueError:
        return None
