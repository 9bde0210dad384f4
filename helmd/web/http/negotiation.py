"""Content negotiation and conditional requests (RFC 9110, sections 12 and 13)."""

from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web

from helmd.web.http.problems import RequestRefusedError


def check_acceptable(request: web.Request, media: Sequence[str]) -> None:
    """Raises RequestRefusedError (406) when none of the MEDIA types is one that the client accepts."""
    given = ",".join(request.headers.getall("Accept", ()))
    if not given.strip() or not media:
        return
    if not any(_quality(given, each) > 0 for each in media):
        sentence = f"this is available as {' and '.join(media)} only"
        raise RequestRefusedError(HTTPStatus.NOT_ACCEPTABLE, "not_acceptable", sentence)


def _quality(accept: str, media: str) -> float:
    """Return the quality value of MEDIA, by the most specific matching range (RFC 9110, section 12.5.1)."""
    best = (-1, 0.0)
    for entry in accept.split(","):
        wanted, *parameters = (part.strip().lower() for part in entry.split(";"))
        ranges = (media, f"{media.partition('/')[0]}/*", "*/*")
        if wanted not in ranges:
            continue
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            quality = float(weight)
        except ValueError:
            quality = 0.0
        best = max(best, (len(ranges) - ranges.index(wanted), quality))
    return best[1]


def check_conditions(request: web.Request, etag: str) -> bool:
    """Return whether the resource with this ETAG (with quotes) must be sent; False if the client has it already (304).

    Raises RequestRefusedError (412) when ``If-Match`` names another state.
    """
    wanted = _tags(request, "If-Match")
    if wanted and "*" not in wanted and etag not in wanted:
        sentence = f"If-Match does not name the present state, which is {etag}"
        raise RequestRefusedError(HTTPStatus.PRECONDITION_FAILED, "precondition_failed", sentence, {"ETag": etag})
    known = [tag.removeprefix("W/") for tag in _tags(request, "If-None-Match")]
    return not ("*" in known or etag in known)


def required_match(request: web.Request) -> frozenset[str] | None:
    """Return the tags in ``If-Match``, one of which the present state must have, or None for any state (``*``).

    Raises RequestRefusedError (428, RFC 6585) without the header.
    """
    wanted = _tags(request, "If-Match")
    if not wanted:
        sentence = "If-Match is missing: read the resource, and send its ETag"
        raise RequestRefusedError(HTTPStatus.PRECONDITION_REQUIRED, "precondition_required", sentence)
    return None if "*" in wanted else frozenset(wanted)


def _tags(request: web.Request, name: str) -> list[str]:
    return [tag.strip() for value in request.headers.getall(name, ()) for tag in value.split(",") if tag.strip()]
