"""Replies about services, but for their status (`helmd.model.units.status.Status`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from helmd.model.json_fields import described
from helmd.model.units.status import Status

StatusByName = Mapping[str, Status]


@dataclass(frozen=True, slots=True)
class DashboardReply:
    """Status and log counts of every service."""

    statuses: Mapping[str, Status] = field(metadata=described("the status of each service by its name"))
    log_stats: Mapping[str, Mapping[str, int]] = field(
        metadata=described("log entries of the last 24 hours by service and level", example={"core": {"INFO": 74}})
    )
    log_stats_error: str | None = field(default=None, metadata=described("why the counts are missing", omitted=True))
