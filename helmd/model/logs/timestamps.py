"""Parsing of ISO 8601 timestamps and of systemd's time spans."""

import re
from datetime import datetime

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|w|month|y|)(?=\s|\d|\Z)")
_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "month": 2629800.0,
    "y": 31557600.0,
}


def iso_timestamp(text: str) -> int | None:
    """Return the microseconds since the epoch of an ISO 8601 date or time, or None if TEXT is not one.

    A time without offset is local time.
    """
    try:
        parsed = datetime.fromisoformat(text.strip())
        return round(parsed.astimezone().timestamp() * 1_000_000)
    except (ValueError, OverflowError, OSError):
        return None


def timespan(text: str) -> float:
    """Parse a time span such as ``1min 30s``, ``infinity`` or ``30`` (systemd.time(7)); return seconds.

    Raises ValueError.
    """
    words = text.strip()
    if words == "infinity":
        return float("inf")
    total, position = 0.0, 0
    while position < len(words):
        found = _SPAN.match(words, position)
        if found is None:
            break
        total += float(found.group(1)) * _UNITS[found.group(2)]
        position = found.end()
        while words[position : position + 1].isspace():
            position += 1
    if not words or position < len(words):
        raise ValueError(f"{text[:40]!a} is not a time span")
    return total
