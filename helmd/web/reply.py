"""The response of a route, for the route table and the OpenAPI document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """The response of a route. ``body`` is the type of its JSON, None for other media types.

    ``media`` are its media types, by the first of which it is documented; ``also`` are bodies of other statuses that
    are no errors of the request, by status.
    """

    body: Any = None
    status: HTTPStatus = HTTPStatus.OK
    media: tuple[str, ...] = ("application/json",)
    also: Mapping[HTTPStatus, Any] = field(default_factory=dict)


EVENTS = Reply(media=("text/event-stream",))
HTML = Reply(media=("text/html",))
PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS = Reply(media=("text/plain",))
FILES = Reply(media=("text/css", "text/javascript", "image/svg+xml"))
REDIRECT = Reply(status=HTTPStatus.SEE_OTHER, media=())
EXPORT = Reply(media=("application/x-ndjson", "text/csv"))
CSV = Reply(media=("text/csv",))
NO_CONTENT = Reply(status=HTTPStatus.NO_CONTENT, media=())
WEBSOCKET = Reply(status=HTTPStatus.SWITCHING_PROTOCOLS, media=())
"""A protocol switch, without content negotiation."""
