"""Health of Helm, and status of services."""

from http import HTTPStatus

from aiohttp import web

from helmd.model.api.health import HealthChecks, HealthReply
from helmd.model.api.json_codec import from_json, to_json
from helmd.model.api.services import StatusByName
from helmd.model.suite.names import HELM_SERVICE
from helmd.web.api.sources import HealthSource, StatusSource
from helmd.web.http.problems import json_response


class Api:
    """The handlers of the route table."""

    def __init__(self, monitor: StatusSource, report: HealthSource) -> None:
        self._monitor = monitor
        self._report = report

    async def health(self, request: web.Request) -> web.Response:
        """GET /health"""
        report = await self._report.report()
        checks = from_json(HealthChecks, report.checks)
        body = HealthReply(report.status, HELM_SERVICE, report.timestamp, checks)
        unhealthy = report.status == "unhealthy"
        return json_response(body, HTTPStatus.SERVICE_UNAVAILABLE if unhealthy else HTTPStatus.OK)

    async def statuses(self, request: web.Request) -> web.Response:
        """GET /api/services/status"""
        return json_response(to_json(self._monitor.statuses(), StatusByName))

    async def status(self, request: web.Request) -> web.Response:
        """GET /api/services/{name}/status"""
        return json_response(self._monitor.status(request.match_info["name"]))
