"""Parameters and replies of the log routes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from helmd.model.json_fields import described
from helmd.model.logs.filter import CURSOR_PATTERN, TextMode
from helmd.model.logs.query_language.parse import QUERY_LIMIT

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
LevelName = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A stored log entry."""

    id: int = field(metadata=described("unique, ascending in the order of storing", example=4711, minimum=1))
    timestamp: datetime = field(metadata=described("when it was logged"))
    service_name: str = field(metadata=described("the service", example="core"))
    level: LevelName = field(metadata=described("its level"))
    message: str = field(metadata=described("up to 1 MiB", example="no route to the mail server"))
    context: Mapping[str, object] | None = field(
        metadata=described("everything else that the line or the body had", example={"queue": 12})
    )
    trace_id: str | None = field(metadata=described("the trace it belongs to", example="4bf92f"))
    user_id: str | None = field(metadata=described("the user it is about"))
    hostname: str | None = field(metadata=described("where it was logged"))
    process_id: int | None = field(metadata=described("the process that logged it", example=812))
    source: str = field(
        metadata=described("printed, posted, or of systemd or Helm about the service",
                           enum=["journal", "http", "systemd", "helm"])
    )  # fmt: skip
    unit: str | None = field(metadata=described("of printed lines: the unit", example="hivematrix-core.service"))
    stream: str | None = field(metadata=described("of printed lines: stdout or stderr", example="stdout"))
    boot_id: str | None = field(metadata=described("of printed lines: the boot"))
    duplicate_of: int | None = field(
        metadata=described("the id of an earlier entry that is the same line, printed and posted")
    )


@dataclass(frozen=True, slots=True)
class LogPage:
    """A page of log entries."""

    logs: tuple[LogEntry, ...] = field(metadata=described("the entries"))
    total: int | None = field(
        metadata=described("how many entries match; null where it was not asked for", example=10124, minimum=0)
    )
    limit: int = field(metadata=described("entries per page", example=100, minimum=1))
    offset: int = field(metadata=described("entries skipped", example=0, minimum=0))
    next_cursor: str | None = field(
        metadata=described("cursor of the next page; null on the last one", example="1767323045678901-4711")
    )
    prev_cursor: str | None = field(
        metadata=described(
            "the page in the other direction, also of entries that come later: as the parameter after, or before where"
            " the oldest come first; null on an empty page",
            example="1767323045678999-4810",
        )
    )
    total_is_estimate: bool | None = field(
        default=None, metadata=described("true where the total is an estimate", omitted=True)
    )
    searched_back_to: datetime | None = field(
        default=None,
        metadata=described(
            "the time limit was reached here; the cursor in this direction continues from it", omitted=True
        ),
    )
    searched_up_to: datetime | None = field(
        default=None,
        metadata=described("the same of a search for newer entries", omitted=True),
    )


@dataclass(frozen=True, slots=True)
class HistogramBucket:
    """Entries of one span of time."""

    start: datetime = field(metadata=described("when it begins"))
    counts: Mapping[str, int] = field(metadata=described("entries by level", example={"INFO": 7, "ERROR": 1}))
    total: int = field(metadata=described("entries of all levels", example=8, minimum=0))


@dataclass(frozen=True, slots=True)
class LogGap:
    """A time from which lines may be missing."""

    since: datetime = field(metadata=described("when it begins"))
    until: datetime = field(metadata=described("when it ends"))
    why: str = field(
        metadata=described("the journal had lost entries, or could not be read", enum=["lost", "unreadable"])
    )
    at_most: int | None = field(metadata=described("how many lines at most; null where that is unknown", example=12))


@dataclass(frozen=True, slots=True)
class HistogramReply:
    """Counts of log entries over time."""

    step_seconds: int = field(metadata=described("length of a bucket", example=60, minimum=60))
    buckets: tuple[HistogramBucket, ...] = field(metadata=described("the oldest first"))
    gaps: tuple[LogGap, ...] = field(
        metadata=described(
            "from when to when lines may be missing, whatever the filter; for those who read all services"
        )
    )
    counted_back_to: datetime | None = field(
        default=None, metadata=described("the time limit was reached here", omitted=True)
    )


@dataclass(frozen=True, slots=True)
class LogFilterQuery:
    """Which entries. A list is separated by commas, or given as several parameters."""

    service: tuple[str, ...] = field(
        default=(),
        metadata=described("services", example=["core"], items={"type": "string", "pattern": "^[a-z0-9_-]{1,50}$"}),
    )
    level: tuple[LevelName, ...] = field(default=(), metadata=described("levels, exactly these"))
    min_level: str | None = field(
        default=None,
        metadata=described(
            "this level and above; also a number or name of syslog, or a range FROM..TO, as journalctl -p takes them",
            example="WARNING",
            omitted=True,
        ),
    )
    start_time: datetime | None = field(default=None, metadata=described("from this time on", omitted=True))
    end_time: datetime | None = field(default=None, metadata=described("before this time", omitted=True))
    trace_id: str | None = field(default=None, metadata=described("exactly this trace", omitted=True))
    user_id: str | None = field(default=None, metadata=described("exactly this user", omitted=True))
    source: tuple[Literal["journal", "http", "systemd", "helm"], ...] = field(
        default=(), metadata=described("where entries came from")
    )
    stream: tuple[Literal["stdout", "stderr"], ...] = field(default=(), metadata=described("of printed lines"))
    q: str | None = field(
        default=None,
        metadata=described("text; case does not matter", omitted=True, maxLength=1000),
    )
    mode: TextMode = field(
        default="substring",
        metadata=described("how q is meant; words: all of them, in any order; regex: as PostgreSQL has them"),
    )
    query: str | None = field(
        default=None,
        metadata=described(
            "conditions in the query language, which entries must meet besides",
            example='service:core level>=warning -"health check"',
            omitted=True,
            maxLength=QUERY_LIMIT,
        ),
    )


@dataclass(frozen=True, slots=True)
class LogPageQuery(LogFilterQuery):
    """Which entries, and how many."""

    limit: int = field(
        default=DEFAULT_LIMIT,
        metadata=described(f"entries per page; at most {MAX_LIMIT:,} are given", minimum=1, maximum=10**18 - 1),
    )
    cursor: str | None = field(
        default=None,
        metadata=described("next_cursor of another page", omitted=True, pattern=CURSOR_PATTERN),
    )
    after: str | None = field(
        default=None,
        metadata=described(
            "the entries that directly follow this cursor in time", omitted=True, pattern=CURSOR_PATTERN
        ),
    )
    before: str | None = field(
        default=None,
        metadata=described("the entries directly before this cursor in time", omitted=True, pattern=CURSOR_PATTERN),
    )
    around: int | None = field(
        default=None,
        metadata=described(
            "the entry with this id, whatever the filter, and the entries on both sides of it. One of cursor, after,"
            " before, around and offset at most is given",
            omitted=True,
            minimum=1,
            maximum=10**18 - 1,
        ),
    )
    order: Literal["desc", "asc"] = field(default="desc", metadata=described("the newest or the oldest first"))
    offset: int = field(
        default=0,
        metadata=described("entries to skip; slower than cursor", minimum=0, maximum=10**18 - 1),
    )
    total: bool = field(default=True, metadata=described("false leaves the total out, which is quicker"))


@dataclass(frozen=True, slots=True)
class HistogramQuery(LogFilterQuery):
    """Which entries, and in which steps."""

    step: str | None = field(
        default=None,
        metadata=described(
            "length of a bucket, whole minutes: seconds, or 5min, 1h; by default one that makes at most 200 buckets."
            " At most 2,000 may be asked for",
            example="5min",
            omitted=True,
        ),
    )


@dataclass(frozen=True, slots=True)
class LogExportQuery(LogFilterQuery):
    """Which entries, and in which form."""

    format: Literal["ndjson", "csv"] = field(default="ndjson", metadata=described("the form of the file"))
    order: Literal["desc", "asc"] = field(default="desc", metadata=described("the newest or the oldest first"))


@dataclass(frozen=True, slots=True)
class LogStreamQuery(LogFilterQuery):
    """Which entries, and where to begin."""

    tail: int = field(
        default=0,
        metadata=described("so many of the newest come first, at most 1,000", minimum=0, maximum=10**18 - 1),
    )
    last_event_id: int | None = field(
        default=None,
        metadata=described(
            "resumes after this entry, as the header Last-Event-ID does", omitted=True, minimum=0, maximum=10**18 - 1
        ),
    )
