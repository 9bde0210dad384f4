"""Parameters and replies of the routes that sum up log entries: the values of fields, and patterns of messages."""

from dataclasses import dataclass
from dataclasses import field as declared
from datetime import datetime

from helmd.model.api.logs import LevelName, LogFilterQuery
from helmd.model.json_fields import described

DEFAULT_VALUES, MOST_VALUES, MOST_FACETS = 20, 200, 12
DEFAULT_PATTERNS, MOST_PATTERNS = 50, 500


@dataclass(frozen=True, slots=True)
class FacetsQuery(LogFilterQuery):
    """Which entries, and what they are counted by."""

    field: tuple[str, ...] = declared(
        default=("service", "level", "source", "stream"),
        metadata=described(
            "service, level, source, stream, host, user, trace, pid, unit, boot, context.KEY, or context for the keys"
            " that there are; at most 12",
            example=["service", "context.status"],
        ),
    )
    limit: int = declared(
        default=DEFAULT_VALUES,
        metadata=described(f"values per field; at most {MOST_VALUES} are given", minimum=1, maximum=10**18 - 1),
    )


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value, and the entries that have it."""

    value: str | None = declared(metadata=described("the value; null for entries without any", example="core"))
    count: int = declared(metadata=described("how many entries", example=812, minimum=0))
    term: str = declared(
        metadata=described("the term that selects them in the query language; with - before it, the others",
                           example="service:core")
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LogFacet:
    """The values of a field among the entries that meet all conditions but those on this field."""

    field: str = declared(metadata=described("as it was asked for", example="service"))
    values: tuple[FacetValue, ...] = declared(metadata=described("those with the most entries first"))
    more: bool = declared(metadata=described("whether there are more values"))
    counted_back_to: datetime | None = declared(
        default=None,
        metadata=described("entries older than this are not counted: that would take too long", omitted=True),
    )


@dataclass(frozen=True, slots=True)
class FacetsReply:
    """Numbers of log entries by the values of fields."""

    facets: tuple[LogFacet, ...] = declared(metadata=described("in the order asked for"))


@dataclass(frozen=True, slots=True)
class PatternsQuery(LogFilterQuery):
    """Which entries, and how many patterns."""

    limit: int = declared(
        default=DEFAULT_PATTERNS,
        metadata=described(f"patterns; at most {MOST_PATTERNS} are given", minimum=1, maximum=10**18 - 1),
    )


@dataclass(frozen=True, slots=True)
class LogPattern:
    """Entries of a service and level whose messages differ in numbers, ids and quoted parts alone."""

    pattern: str = declared(metadata=described("with an asterisk for what varies", example="user * logged in"))
    service_name: str = declared(metadata=described("the service", example="core"))
    level: LevelName = declared(metadata=described("their level"))
    count: int = declared(metadata=described("how many", example=812, minimum=1))
    first: datetime = declared(metadata=described("the time of the oldest"))
    last: datetime = declared(metadata=described("the time of the newest"))
    example_id: int = declared(metadata=described("the newest's id", example=4711, minimum=1))
    example: str = declared(metadata=described("its message, of which 1,000 characters", example="user 7 logged in"))
    term: str = declared(
        metadata=described("the term that selects such messages in the query language; with - before it, it hides them",
                           example='pattern:"user * logged in"')
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PatternsReply:
    """Log entries by the patterns of their messages."""

    patterns: tuple[LogPattern, ...] = declared(metadata=described("those with the most entries first"))
    more: bool = declared(metadata=described("whether there are more patterns"))
    counted_back_to: datetime | None = declared(
        default=None,
        metadata=described("entries older than this are not counted: that would take too long", omitted=True),
    )
