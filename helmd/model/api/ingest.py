"""Bodies that services post, and the reply. `helmd.model.ingest` parses them, entry by entry, for speed.

Whatever has a sensible reading is taken, so most members accept any value; docs/api.md says how it is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from helmd.model.json_fields import described

MAX_ENTRIES = 10_000
"""Most entries or measurements in one body."""
SERVICE_PATTERN = "^[a-z0-9_-]{1,50}$"
METRIC_PATTERN = "^[a-zA-Z_][a-zA-Z0-9_.:-]{0,99}$"
MAX_TAGS, MAX_TAG_KEY, MAX_TAG_VALUE = 32, 100, 1000
MAX_METRIC = 1e300
"""Greatest absolute value of a measurement: sums of any number of them are finite."""

_SERVICE = described("the service that posts; a service's token may post under its own name only",
                     example="tickets", pattern=SERVICE_PATTERN)  # fmt: skip
_MESSAGE = described("any JSON value; what is not text becomes its JSON text", example="no route to the mail server")
_LEVEL = described("any case, common synonyms (WARN, FATAL); unknown or null becomes INFO", example="ERROR")
_TIMESTAMP = described(
    "ISO 8601, UTC unless it has an offset; what is not, is over 10 minutes ahead or older than the retention becomes"
    " the time of receipt",
    example="2026-11-24T06:40:00Z",
)


@dataclass(frozen=True, slots=True)
class PostedEntry:
    """A log entry as it is posted. Members that are not listed go into the context."""

    OPEN: ClassVar[bool] = True

    message: Any = field(default=None, metadata=_MESSAGE)
    level: Any = field(default=None, metadata=_LEVEL)
    timestamp: Any = field(default=None, metadata=_TIMESTAMP)
    context: Any = field(default=None, metadata=described("an object", example={"queue": 12}))
    trace_id: Any = field(default=None, metadata=described("text; null and empty count as absent", example="4bf92f"))
    user_id: Any = field(default=None, metadata=described("text; null and empty count as absent"))
    hostname: Any = field(default=None, metadata=described("text; null and empty count as absent"))
    process_id: Any = field(default=None, metadata=described("a number", example=812))


@dataclass(frozen=True, slots=True)
class PostedEntries:
    """Log entries of one service."""

    OPEN: ClassVar[bool] = True

    service_name: str = field(metadata=_SERVICE)
    logs: tuple[PostedEntry, ...] = field(metadata=described("the entries", maxItems=MAX_ENTRIES))


@dataclass(frozen=True, slots=True)
class SinglePostedEntry(PostedEntry):
    """One log entry without a list around it."""

    service_name: str = field(kw_only=True, metadata=_SERVICE)
    message: Any = field(kw_only=True, metadata=_MESSAGE)


@dataclass(frozen=True, slots=True)
class PostedMeasurement:
    """One value of a metric."""

    OPEN: ClassVar[bool] = True

    name: str = field(metadata=described("the metric", example="queue_length", pattern=METRIC_PATTERN))
    value: float = field(metadata=described("a finite number", example=12, minimum=-MAX_METRIC, maximum=MAX_METRIC))
    timestamp: Any = field(default=None, metadata=_TIMESTAMP)
    tags: Mapping[str, str] | None = field(
        default=None,
        metadata=described(
            "text by name",
            example={"queue": "mail"},
            maxProperties=MAX_TAGS,
            propertyNames={"maxLength": MAX_TAG_KEY},
            additionalProperties={"type": "string", "maxLength": MAX_TAG_VALUE},
        ),
    )


@dataclass(frozen=True, slots=True)
class PostedMeasurements:
    """Measurements of one service."""

    OPEN: ClassVar[bool] = True

    service_name: str = field(metadata=_SERVICE)
    metrics: tuple[PostedMeasurement, ...] = field(metadata=described("the measurements", maxItems=MAX_ENTRIES))


@dataclass(frozen=True, slots=True)
class SinglePostedMeasurement(PostedMeasurement):
    """One measurement without a list around it."""

    service_name: str = field(kw_only=True, metadata=_SERVICE)


@dataclass(frozen=True, slots=True)
class IngestReply:
    """What was taken."""

    success: bool = field(metadata=described("always true", example=True))
    ingested: int = field(metadata=described("how many", example=1, minimum=0))
    message: str = field(metadata=described("the same as a sentence"))
