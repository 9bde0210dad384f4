"""Details of each service, of the machine, and of the caller."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from aiohttp import web

from helmd.model.api.details import ServicesReply, TimelineReply, service_details
from helmd.model.api.logs import MAX_LIMIT
from helmd.model.api.me import MeReply
from helmd.model.api.metrics import LONGEST_STEP
from helmd.model.errors import UnknownServiceError, UsageError
from helmd.model.logs.filter import page_cursor_of, utc_timestamp
from helmd.model.suite.service import Registry
from helmd.model.units.status import Observed
from helmd.operations.logs.reader import LogReader
from helmd.operations.monitoring.details import ServiceFiles, probe_reply
from helmd.operations.monitoring.history import MetricHistory
from helmd.operations.monitoring.host_state import HostState
from helmd.operations.monitoring.service_figures import ServiceFigures
from helmd.operations.monitoring.timeline import timeline
from helmd.web.api.log_query import number, parameters
from helmd.web.api.sources import ObservedSource
from helmd.web.auth.roles import Identity
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.problems import json_response
from helmd.web.reply import PROMETHEUS_TYPE

_DEFAULT_SPAN = timedelta(hours=1)
_DEFAULT_EVENTS = 100


class Details:
    """The handlers. REGISTRY returns the current registry."""

    def __init__(
        self,
        monitor: ObservedSource,
        registry: Callable[[], Registry],
        reader: LogReader,
        metrics: MetricHistory,
        host: HostState,
        figures: Callable[[], ServiceFigures] = ServiceFigures,
    ) -> None:
        self._monitor = monitor
        self._registry = registry
        self._reader = reader
        self._metrics = metrics
        self._host = host
        self._figures = figures
        self._files = ServiceFiles()

    async def services(self, request: web.Request) -> web.Response:
        """GET /api/services"""
        found = self._registry().services
        return json_response(ServicesReply(tuple(found), {name: service_details(each) for name, each in found.items()}))

    async def me(self, request: web.Request) -> web.Response:
        """GET /api/me"""
        caller: Identity = request["identity"]
        ends = None if caller.expires is None else datetime.fromtimestamp(caller.expires, UTC)
        services = None if caller.services is None else tuple(sorted(caller.services))
        return json_response(
            MeReply(caller.name, caller.role.value, caller.via, services, caller.session or None, ends)
        )

    async def unit(self, request: web.Request) -> web.Response:
        """GET /api/services/{name}/unit"""
        observed = self._observed(request)
        if observed.external:
            raise UnknownServiceError(f"{observed.name} is external: it has no unit")
        return json_response(await self._files.unit(observed))

    async def probes(self, request: web.Request) -> web.Response:
        """GET /api/services/{name}/probes"""
        return json_response(probe_reply(self._observed(request), time.time(), time.monotonic()))

    async def processes(self, request: web.Request) -> web.Response:
        """GET /api/services/{name}/processes"""
        observed = self._observed(request)
        return json_response(await self._files.processes(observed))

    async def timeline(self, request: web.Request) -> web.Response:
        """GET /api/services/{name}/timeline"""
        observed = self._observed(request)
        given = parameters(request)
        limit = min(number(given, "limit", _DEFAULT_EVENTS, least=1), MAX_LIMIT)
        before = page_cursor_of(given["cursor"]) if given.get("cursor") else None
        found = await run_while_connected(request, timeline(self._reader, observed.name, limit, before))
        following = None if found.next is None else str(found.next)
        return json_response(TimelineReply(observed.name, found.events, following))

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /api/metrics/{name}"""
        observed = self._observed(request)
        given = parameters(request)
        end = _time(given, "end_time") or datetime.now(UTC)
        try:
            start = _time(given, "start_time") or end - _DEFAULT_SPAN
        except OverflowError:
            raise UsageError("end_time: is too early") from None
        if start > end:
            raise UsageError("start_time: must not be after end_time")
        step = number(given, "step", 0, least=1) or None
        if step is not None and step > LONGEST_STEP:
            raise UsageError(f"step: must be at most {LONGEST_STEP} seconds")
        names = frozenset(name.strip() for name in given.get("metric_name", "").split(",")) - {""}
        if any("\0" in name for name in names):
            raise UsageError("metric_name: must not contain a NUL character")
        reading = self._metrics.read(observed.name, start, end, names or None, step)
        return json_response(await run_while_connected(request, reading))

    async def host(self, request: web.Request) -> web.Response:
        """GET /api/host"""
        return json_response(await self._host.report())

    async def prometheus(self, request: web.Request) -> web.Response:
        """GET /metrics/prometheus"""
        # Imported here, since most suites are not scraped, and the library takes 2 MB of memory.
        from helmd.operations.monitoring.prometheus import prometheus_text

        statuses = self._monitor.statuses()
        taken = {name: found.response_ms for name in statuses if (found := self._monitor.observed(name))}
        seconds = {name: taken_ms / 1000 for name, taken_ms in taken.items() if taken_ms is not None}
        body = prometheus_text(statuses, replace(self._figures(), response_seconds=seconds))
        return web.Response(body=body, headers={"Content-Type": PROMETHEUS_TYPE})

    def _observed(self, request: web.Request) -> Observed:
        """Return the service that the path names. Raises UnknownServiceError."""
        name = request.match_info["name"]
        found = self._monitor.observed(name)
        if found is None:
            raise UnknownServiceError(f"there is no service '{name}'", hint="See: helmctl status")
        return found


def _time(given: Mapping[str, str], name: str) -> datetime | None:
    return utc_timestamp(name, given[name]) if given.get(name) else None
