"""Moments as people write them in ISO 8601; what systemd writes otherwise is systemd's to read."""

from datetime import datetime


def iso_moment(text: str) -> int | None:
    """Microseconds since 1970, from an ISO 8601 date or time (local where it names no zone); None when it is none."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return round(moment.astimezone().timestamp() * 1_000_000)
    except (ValueError, OverflowError, OSError):
        return None
