"""The settings of one service as in the files, and changes of them, which a job applies."""

import asyncio
from dataclasses import replace
from http import HTTPStatus

from aiohttp import web

from helmd.model.api.service_config import ServiceConfigBody
from helmd.model.identity.audit import DRY_RUN
from helmd.model.layout import Layout
from helmd.operations.configuration.service_config import change_service_config, service_config
from helmd.operations.jobs.engine import JobEngine
from helmd.web.api.control import requester_of
from helmd.web.api.log_query import one_of, parameters
from helmd.web.auth.audit import note_change
from helmd.web.http.negotiation import check_conditions, required_match
from helmd.web.http.problems import json_response, prefix_of
from helmd.web.http.validation import read_request


class ServiceConfigs:
    """The handlers. ENGINE runs what applies a change."""

    def __init__(self, places: Layout, engine: JobEngine) -> None:
        self._places = places
        self._engine = engine

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/services/{name}/config"""
        found = await asyncio.to_thread(service_config, self._places, request.match_info["name"])
        headers = {"ETag": found.etag, "Cache-Control": "no-cache"}
        if not check_conditions(request, found.etag):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return json_response(found.reply, headers=headers)

    async def change(self, request: web.Request) -> web.Response:
        """PUT /api/services/{name}/config"""
        name = request.match_info["name"]
        dry_run = one_of(parameters(request), "dry_run", ("false", "true")) == "true"
        etags = required_match(request)
        body = await read_request(request, ServiceConfigBody)
        what = "; ".join(
            f"{word} {', '.join(keys)}" for word, keys in (("set", body.set), ("unset", body.unset)) if keys
        )
        note_change(request, reason=body.reason, detail=f"{DRY_RUN}{what}" if dry_run else what)
        changing = asyncio.to_thread(change_service_config, self._places, name, body, etags, dry_run=dry_run)
        # The job ends soon; the change is applied even if the client disconnects meanwhile.
        changed, etag = await asyncio.shield(changing)
        headers = {"ETag": etag}
        if dry_run or not body.apply:
            return json_response(changed, headers=headers)
        view = await self._engine.submit("apply", (name,), ("apply", name), requester_of(request), body.reason)
        note_change(request, reason=body.reason, detail=f"{what}; job {view.record.request.id}")
        headers["Location"] = f"{prefix_of(request)}/api/jobs/{view.record.request.id}"
        return json_response(replace(changed, job=view.reply), HTTPStatus.ACCEPTED, headers=headers)
