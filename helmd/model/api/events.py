"""Topics, parameters and data of ``GET /api/events``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from helmd.model.api.audit import AuditRecord
from helmd.model.api.jobs import JobReply
from helmd.model.api.logs import LogStreamQuery
from helmd.model.json_fields import described
from helmd.model.units.status import Status

Topic = Literal["status", "logs", "jobs", "audit"]
TOPIC_ROLES: Mapping[Topic, str] = {"status": "client", "logs": "billing", "jobs": "admin", "audit": "admin"}
"""The topics, and the least role that may read each."""


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """The event ``status``: states of services; the first has all."""

    statuses: Mapping[str, Status] = field(metadata=described("those that have changed, by name"))
    removed: tuple[str, ...] = field(metadata=described("services that are no more"))


@dataclass(frozen=True, slots=True)
class JobsEvent:
    """The event ``jobs``: jobs and their states; the first has all."""

    jobs: tuple[JobReply, ...] = field(metadata=described("those that have changed"))
    removed: tuple[str, ...] = field(metadata=described("ids of jobs that are no more"))


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """The event ``audit``: records of the audit trail; the first has the newest, the newest first."""

    audit: tuple[AuditRecord, ...] = field(metadata=described("records"))
    first: bool = field(metadata=described("whether it is the first event of the topic in this stream"))


@dataclass(frozen=True, slots=True)
class TopicTrouble:
    """The events ``unavailable`` (one topic, for now) and ``end`` (the stream)."""

    topic: Topic | None = field(metadata=described("the topic; null for the stream"))
    code: str = field(metadata=described("what happened, for programs", example="store"))
    error: str = field(metadata=described("the same as a sentence"))


@dataclass(frozen=True, slots=True)
class EventsQuery(LogStreamQuery):
    """Which topics; the rest says which log entries."""

    topics: tuple[Topic, ...] = field(
        default=("status",),
        metadata=described("topics: status for any user, logs from role billing, jobs and audit for admins"),
    )
