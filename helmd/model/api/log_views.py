"""Bodies about saved views of the log page."""

from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.json_fields import described
from helmd.model.logs.query_language.parse import QUERY_LIMIT

_NAME = described("what it is called; a view of one's own with this name is replaced", example="Errors of Codex",
                  minLength=1, maxLength=80, pattern=r"^[^\u0000-\u001f\u007f]*$")  # fmt: skip
_SHARED = described("whether other technicians see it")
_QUERY = described("conditions in the query language", example="service:codex level>=error", maxLength=QUERY_LIMIT,
                   pattern=r"^[^\u0000]*$")  # fmt: skip
_COLUMNS = described(
    "columns beside the usual ones: fields such as host, and context.KEY",
    example=["context.status"],
    maxItems=20,
    items={"type": "string", "minLength": 1, "maxLength": 200},
)
_LAST = described("the time span up to now that it shows, such as 15min, 1h or 7d; empty for all, or for the two times",
                  example="1h", pattern="^([1-9][0-9]{0,5}(s|min|h|d|w))?$")  # fmt: skip
_START, _END = described("from this time on"), described("before this time")


@dataclass(frozen=True, slots=True)
class LogViewRequest:
    """A view to save."""

    name: str = field(metadata=_NAME)
    query: str = field(default="", metadata=_QUERY)
    columns: tuple[str, ...] = field(default=(), metadata=_COLUMNS)
    last: str = field(default="", metadata=_LAST)
    start_time: datetime | None = field(default=None, metadata=_START)
    end_time: datetime | None = field(default=None, metadata=_END)
    shared: bool = field(default=False, metadata=_SHARED)


@dataclass(frozen=True, slots=True)
class LogView:
    """A saved view."""

    id: int = field(metadata=described("its id", example=3, minimum=1))
    name: str = field(metadata=_NAME)
    owner: str = field(metadata=described("who saved it", example="user ann"))
    own: bool = field(metadata=described("whether that is the caller"))
    shared: bool = field(metadata=_SHARED)
    query: str = field(metadata=_QUERY)
    columns: tuple[str, ...] = field(metadata=_COLUMNS)
    last: str = field(metadata=_LAST)
    start_time: datetime | None = field(metadata=_START)
    end_time: datetime | None = field(metadata=_END)
    changed_at: datetime = field(metadata=described("when it was saved"))


@dataclass(frozen=True, slots=True)
class LogViewList:
    """The views that the caller sees."""

    views: tuple[LogView, ...] = field(metadata=described("one's own first, by name; then shared ones"))
