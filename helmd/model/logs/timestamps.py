"""Moments as people write them in ISO 8601, and lengths of time as systemd writes them."""

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
    """Microseconds since 1970, from an ISO 8601 date or time (local where it names no zone); None when it is none."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return round(moment.astimezone().timestamp() * 1_000_000)
    except (ValueError, OverflowError, OSError):
        return None


def timespan(text: str) -> float:
    """Seconds, from what ``systemctl show`` and unit files say: ``1min 30s``, ``infinity``, ``30`` (systemd.time(7)).

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
        raise ValueError(f"{text[:40]!a} is no length of time")
    return total
