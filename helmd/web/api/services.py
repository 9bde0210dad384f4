"""What the routes answer."""

from http import HTTPStatus

from aiohttp import web

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
        body = {
            "status": report.status,
            "service": "helm",
            "timestamp": report.timestamp.isoformat(),
            "checks": report.checks,
        }
        unhealthy = report.status == "unhealthy"
        return json_response(body, HTTPStatus.SERVICE_UNAVAILABLE if unhealthy else HTTPStatus.OK)

    async def statuses(self, request: web.Request) -> web.Response:
        """GET /api/services/status"""
        return json_response(self._monitor.statuses())

    async def status(self, request: web.Request) -> web.Response:
        """GET /api/services/{name}/status"""
        return json_response(self._monitor.status(request.match_info["name"]))
