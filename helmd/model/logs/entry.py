"""A row of the log store: what every log entry consists of, whoever wrote it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

MESSAGE_LIMIT = 1024 * 1024
"""Bytes of a message that are kept."""

JOURNAL, SYSTEMD, HELM, HTTP = "journal", "systemd", "helm", "http"
"""Sources of a row: what a service printed, what systemd said of it, what Helm did with it, what was posted to Helm."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = int((datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * 1_000_000


class LogRow(NamedTuple):
    """One row of ``log_entries``; the fields are its columns. A tuple, since a flood makes 100,000 of them a second."""

    timestamp: datetime
    service_name: str
    level: str
    message: str
    context: Mapping[str, object] | None = None
    trace_id: str | None = None
    user_id: str | None = None
    hostname: str | None = None
    process_id: int | None = None
    source: str = JOURNAL
    unit: str | None = None
    stream: str | None = None
    boot_id: str | None = None
    duplicate_of: int | None = None
    """The id of the earlier row that is this very line: a service both printed and posted it."""


def datetime_of(realtime: int) -> datetime:
    """Microseconds since 1970 as a time; what no calendar has (a damaged file) is held to the nearest it has."""
    return _EPOCH + timedelta(microseconds=min(max(realtime, 0), _LATEST))
