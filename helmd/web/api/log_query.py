"""Parameters of requests for log entries, restricted to what the caller may read."""

from aiohttp import web

from helmd.model.errors import UsageError
from helmd.model.logs.filter import LogFilter, log_filter_of
from helmd.model.printable import printable
from helmd.web.auth.roles import Identity

_LISTS = frozenset({"service", "level", "source", "stream", "topics", "metric_name", "field"})


def parameters(request: web.Request) -> dict[str, str]:
    """Return the parameters by name; those of lists may be repeated.

    Raises UsageError for another one given twice.
    """
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given and name not in _LISTS:
            raise UsageError(f"{printable(name, 40)}: is given more than once")
        given[name] = f"{given[name]},{value}" if name in given else value
    return given


def filter_of(request: web.Request, given: dict[str, str]) -> LogFilter:
    """Return the filter of the parameters, restricted to what the caller may read. Raises UsageError."""
    return confined(request, log_filter_of(given))


def confined(request: web.Request, wanted: LogFilter) -> LogFilter:
    """Return WANTED, restricted to what the caller may read."""
    identity: Identity | None = request["identity"]
    confined_to = identity.services if identity is not None else frozenset[str]()
    return wanted if confined_to is None else wanted.confined(confined_to)


def number(given: dict[str, str], name: str, default: int, least: int = 0) -> int:
    """Return an integer. Raises UsageError."""
    text = given.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < least:
        raise UsageError(f"{name}: {printable(text, 40)!r} must be an integer >= {least}")
    return int(text)


def one_of(given: dict[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """Return one of ALLOWED, of which the first is the default. Raises UsageError."""
    text = given.get(name) or allowed[0]
    if text not in allowed:
        raise UsageError(f"{name}: must be one of {', '.join(allowed)}")
    return text
