"""Listing, saving and removing saved views of the log page."""

from http import HTTPStatus
from typing import ClassVar

from aiohttp import web

from helmd.model.api.log_views import LogViewList, LogViewRequest
from helmd.model.errors import HelmError, UsageError
from helmd.model.logs.query_language.parse import check_column, parsed_query
from helmd.operations.logs.reader import LogReader
from helmd.web.auth.audit import note_change
from helmd.web.auth.roles import Identity, Role
from helmd.web.http.problems import json_response
from helmd.web.http.validation import read_request


class UnknownViewError(HelmError):
    """No such saved view, or none that the caller may remove."""

    code: ClassVar[str] = "unknown_view"


class TooManyViewsError(HelmError):
    """The caller has the maximum number of saved views."""

    code: ClassVar[str] = "too_many_views"


class LogViews:
    """The handlers."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/views"""
        return json_response(LogViewList(tuple(await self._reader.views(_owner(request)))))

    async def save(self, request: web.Request) -> web.Response:
        """POST /api/views"""
        given = await read_request(request, LogViewRequest)
        parsed_query(given.query)
        for column in given.columns:
            check_column(column)
        if given.last and (given.start_time or given.end_time):
            raise UsageError("last: can't be combined with start_time or end_time")
        note_change(request, detail=f"view {given.name}")
        view = await self._reader.save_view(_owner(request), given)
        if view is None:
            raise TooManyViewsError(
                "there are as many saved views as one user may have",
                hint="Remove one: open it and press the cross of its tab, or DELETE /api/views/ID.",
            )
        return json_response(view, HTTPStatus.CREATED, headers={"Location": f"/api/views/{view.id}"})

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE /api/views/{id}"""
        text = request.match_info["id"]
        identity: Identity = request["identity"]
        note_change(request, detail=f"view {text[:18]}")
        number = int(text) if len(text) <= 18 else 0
        name = await self._reader.remove_view(number, _owner(request), any_shared=identity.may(Role.ADMIN))
        if name is None:
            raise UnknownViewError("there is no such view that you may remove", hint="List them: GET /api/views.")
        note_change(request, detail=f"view {name}")
        return web.Response(status=HTTPStatus.NO_CONTENT)


def _owner(request: web.Request) -> str:
    """Return the owner of views: the user, independent of the kind of login; the account; or the machine token."""
    identity: Identity = request["identity"]
    kind = {"socket": "account", "machine": "token"}.get(identity.via, "user")
    return f"{kind} {identity.name}"
