"""Scripts that set up the firewall."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

from aiohttp import web

from helmd.model.api.firewall import FirewallScriptReply
from helmd.model.security.firewall import FIREWALL_KINDS, FirewallKind, firewall_plan
from helmd.model.security.firewall_script import script_file_name
from helmd.model.suite.service import Registry
from helmd.operations.security.firewall import script_for
from helmd.web.api.log_query import one_of, parameters
from helmd.web.http.problems import json_response

_DEFAULT_FIRST: tuple[FirewallKind, ...] = tuple(sorted(FIREWALL_KINDS, key=lambda kind: kind != "nftables"))


class Firewall:
    """The handler. SUITE returns the current registry and Helm's port; SHARE has the package's files."""

    def __init__(self, share: Path, suite: Callable[[], tuple[Registry, int]]) -> None:
        self._share = share
        self._suite = suite

    async def script(self, request: web.Request) -> web.Response:
        """GET /api/security/firewall-script"""
        given = parameters(request)
        kind = cast(FirewallKind, one_of(given, "type", _DEFAULT_FIRST))
        registry, port = self._suite()
        plan = firewall_plan(registry, port, _words(given.get("open")), _words(given.get("allow_from")))
        text = await asyncio.to_thread(script_for, self._share, kind, plan)
        return json_response(FirewallScriptReply(script_file_name(kind), text))


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",")] if text else []
