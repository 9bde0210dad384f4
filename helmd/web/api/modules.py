"""Modules of the suite, and what of the machine they depend on."""

from aiohttp import web

from helmd.operations.modules.apps import InstalledApps
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.problems import json_response


class Modules:
    """The handlers. APPS looks at the machine."""

    def __init__(self, apps: InstalledApps) -> None:
        self._apps = apps

    async def apps(self, request: web.Request) -> web.Response:
        """GET /api/apps"""
        return json_response(await run_while_connected(request, self._apps.report()))
