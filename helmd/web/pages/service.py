"""The page of one service: its state, timeline, unit and processes, and settings."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from aiohttp import web

from helmd.model.api.details import ProbeReply
from helmd.model.errors import HelmError, UnknownServiceError
from helmd.model.jobs.control import CONFIRMED
from helmd.model.layout import Layout
from helmd.model.logs.filter import page_cursor_of
from helmd.model.suite.composition import dependencies
from helmd.model.suite.dependencies import closure, dependents
from helmd.model.suite.names import HELM_SERVICE, MODES
from helmd.model.suite.service import Registry
from helmd.model.units.status import Observed, Status
from helmd.model.units.unit_state import condition
from helmd.operations.diagnostics.failures import FAILS, Failure, FailureReader
from helmd.operations.diagnostics.service_facts import ServiceFacts, ServiceFactsReader
from helmd.operations.logs.reader import LogReader
from helmd.operations.monitoring.code_versions import CodeVersion
from helmd.operations.monitoring.details import probe_reply
from helmd.operations.monitoring.history import MetricHistory
from helmd.operations.monitoring.timeline import timeline
from helmd.web.api.sources import ObservedSource
from helmd.web.auth.roles import Identity, Role
from helmd.web.http.cancellation import run_while_connected
from helmd.web.pages.fresh_login import fresh_login
from helmd.web.pages.overview import STATES, Tone
from helmd.web.pages.rendering import Renderer
from helmd.web.pages.service_settings import SettingsForm, settings_form
from helmd.web.pages.timeline_rows import EventRow, event_rows

Tab = Literal["state", "output", "settings"]
_EVENTS = 40
_RESPONSES = timedelta(hours=1)
_RESPONSE_STEP = 60
_WIDTH, _HEIGHT = 300.0, 48.0
"""The coordinates of the chart of response times."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A service that this one needs, or that needs it. ``direct`` is unset where others are between."""

    name: str
    tone: Tone
    icon: str
    state: str
    direct: bool


@dataclass(frozen=True, slots=True)
class Responses:
    """Response times of the health check in the last hour, in ms: a chart, and figures; empty without measurements."""

    path: str = ""
    least: float | None = None
    mean: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class ActionButton:
    """An action on the service. ``refusal`` is why it can't be done now, a sentence; ``undo`` its inverse action."""

    action: str
    label: str
    icon: str
    refusal: str = ""
    undo: str = ""
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class ServicePageContext:
    """What the page shows. What a part does not need is None or empty there."""

    name: str
    description: str
    status: Status
    tone: Tone
    glyph: str
    external: bool
    uptime: float | None
    tab: Tab
    may_act: bool
    actions: tuple[ActionButton, ...]
    no_actions: str
    modes: tuple[str, ...]
    needs: tuple[Neighbour, ...]
    needed_by: tuple[Neighbour, ...]
    probe: ProbeReply
    facts: ServiceFacts | None = None
    code: CodeVersion | None = None
    responses: Responses = field(default_factory=Responses)
    events: tuple[EventRow, ...] = ()
    events_trouble: str = ""
    older: str = ""
    form: SettingsForm = field(default_factory=SettingsForm)
    failure: Failure | None = None
    """What it printed; None while it works."""


class ServicePage:
    """The handler. REGISTRY gives the services of now, URL the address at which browsers reach helmd.

    SUMMARIES say what each request is for, by method and path as they are recorded.
    """

    def __init__(
        self,
        monitor: ObservedSource,
        registry: Callable[[], Registry],
        places: Layout,
        reader: LogReader,
        metrics: MetricHistory,
        url: Callable[[], str],
        summaries: Mapping[str, str],
        renderer: Renderer,
        failures: FailureReader,
    ) -> None:
        self._monitor = monitor
        self._registry = registry
        self._places = places
        self._reader = reader
        self._metrics = metrics
        self._url = url
        self._summaries = summaries
        self._renderer = renderer
        self._facts = ServiceFactsReader(places)
        self._failures = failures

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET /service/{name}"""
        observed = self._observed(request.match_info["name"])
        part = request.query.get("part", "")
        identity: Identity = request["identity"]
        tab: Tab = _tab(request.query.get("tab", ""), identity)
        shows = tab == "state" and part in ("", "state")
        before = request.query.get("before", "")
        # At once: each waits for something else.
        status = self._monitor.status(observed.name)
        facts, (events, older, trouble), responses, failure = await asyncio.gather(
            self._facts_of(observed, part in ("", "head", "state")),
            self._timeline(request, observed.name, before, shows or part == "timeline"),
            self._responses(request, observed.name, shows),
            self._failure(status, shows),
        )
        form = SettingsForm()
        if tab == "settings" and not part:
            form = await settings_form(
                self._places, observed.name, fresh_login(request, self._url(), "Changing settings")
            )
        needs, needed_by = self._neighbours(observed.name)
        tone, glyph, _ = STATES.get(status.state, STATES["unknown"])
        started = status.started_at
        own = observed.name == HELM_SERVICE
        return self._renderer.show(
            request,
            "service.html",
            ServicePageContext(
                name=observed.name,
                description=observed.service.description if observed.service is not None else "",
                status=status,
                tone=tone,
                glyph=glyph,
                external=observed.external,
                uptime=None if started is None else (datetime.now(UTC) - started).total_seconds(),
                tab=tab,
                may_act=identity.may(Role.ADMIN),
                actions=tuple(actions_of(observed, time.time())),
                no_actions=_no_actions(observed),
                modes=() if observed.external or own or status.mode is None else MODES,
                needs=needs,
                needed_by=needed_by,
                probe=probe_reply(observed, time.time(), time.monotonic()),
                facts=facts,
                code=facts.version if facts is not None else None,
                responses=responses,
                events=events,
                events_trouble=trouble,
                older=older,
                form=form,
                failure=failure,
            ),
        )

    def _observed(self, name: str) -> Observed:
        """Raises UnknownServiceError."""
        found = self._monitor.observed(name)
        if found is None:
            raise UnknownServiceError(f"there is no service '{name}'", hint="See: helmctl status")
        return found

    def _neighbours(self, name: str) -> tuple[tuple[Neighbour, ...], tuple[Neighbour, ...]]:
        """Return the services that NAME needs, directly or not, and those that need it."""
        graph, statuses = dependencies(self._registry()), self._monitor.statuses()
        own = graph.get(name, ())

        def shown(names: Iterable[str], direct: Callable[[str], bool]) -> tuple[Neighbour, ...]:
            found = []
            for each in names:
                state = statuses[each].state if each in statuses else "unknown"
                tone, icon, _ = STATES.get(state, STATES["unknown"])
                found.append(Neighbour(each, tone, icon, state, direct(each)))
            return tuple(sorted(found, key=lambda neighbour: not neighbour.direct))

        needed = (each for each in graph if each != name and each in closure(graph, [name]))
        return (
            shown(needed, lambda each: each in own),
            shown(dependents(graph, name), lambda each: name in graph.get(each, ())),
        )

    async def _facts_of(self, observed: Observed, asked: bool) -> ServiceFacts | None:
        return await self._facts.read(observed) if asked else None

    async def _failure(self, status: Status, asked: bool) -> Failure | None:
        return await self._failures.of(status.service_name) if asked and status.state in FAILS else None

    async def _timeline(
        self, request: web.Request, name: str, before: str, asked: bool
    ) -> tuple[tuple[EventRow, ...], str, str]:
        """Return events, where older ones begin, and why there are none."""
        if not asked:
            return (), "", ""
        try:
            cursor = page_cursor_of(before) if before else None
            found = await run_while_connected(request, timeline(self._reader, name, _EVENTS, cursor))
        except HelmError as error:
            return (), "", error.sentence
        rows = tuple(event_rows(found.events, name, self._summaries))
        return rows, "" if found.next is None else str(found.next), ""

    async def _responses(self, request: web.Request, name: str, asked: bool) -> Responses:
        """Return those of the last hour; none while the store is unavailable, which the timeline shows."""
        if not asked:
            return Responses()
        end = datetime.now(UTC)
        reading = self._metrics.read(name, end - _RESPONSES, end, {"response_ms"}, _RESPONSE_STEP)
        try:
            found = (await run_while_connected(request, reading)).metrics
        except HelmError:
            return Responses()
        return responses_of([(each.timestamp, each.metric_value, each.minimum, each.maximum) for each in found], end)


def responses_of(points: Sequence[tuple[datetime, float, float | None, float | None]], end: datetime) -> Responses:
    """Return the chart of POINTS: time, mean, least, most, in ms.

    It ends at END; where nothing was measured, it is broken.
    """
    if not points:
        return Responses()
    ordered = sorted(points)
    most = max(high if high is not None else mean for _, mean, _, high in ordered)
    span = _RESPONSES.total_seconds()
    steps, before = [], None
    for at, mean, _, _ in ordered:
        x = _WIDTH * (1 - (end - at).total_seconds() / span)
        y = _HEIGHT * (1 - 0.92 * mean / most) if most else _HEIGHT
        broken = before is None or (at - before).total_seconds() > 2 * _RESPONSE_STEP
        steps.append(f"{'M' if broken else 'L'}{max(x, 0):.1f} {y:.1f}")
        before = at
    least = min(low if low is not None else mean for _, mean, low, _ in ordered)
    return Responses("".join(steps), least, sum(mean for _, mean, _, _ in ordered) / len(ordered), most)


def actions_of(observed: Observed, now: float) -> Iterator[ActionButton]:
    """Yield what can be done with a service that Helm controls. NOW is seconds since the epoch."""
    if _no_actions(observed):
        return
    state = condition(observed.facts, now)
    runs = state in ("running", "starting", "flapping")
    confirm = observed.name in CONFIRMED
    if runs:
        yield ActionButton("restart", "Restart", "rotate-ccw")
        yield ActionButton("stop", "Stop", "square", undo="start", confirm=confirm)
        reloads = observed.facts.can_reload
        refusal = "" if reloads else "It has no reload_command in services.toml."
        yield ActionButton("reload", "Reload", "refresh-cw", refusal)
    else:
        stopping = "It is stopping." if state == "stopping" else ""
        yield ActionButton("start", "Start", "play", stopping, undo="stop")
        yield ActionButton("restart", "Restart", "rotate-ccw", stopping)


def _no_actions(observed: Observed) -> str:
    """Return why nothing can be done with the service here, as a sentence; empty for others."""
    if observed.name == HELM_SERVICE:
        return "Helm itself is not started or stopped here. On the machine: systemctl --user restart helmd"
    return "An external service is shown, never started or stopped." if observed.external else ""


def _tab(given: str, identity: Identity) -> Tab:
    if given == "settings" and identity.may(Role.ADMIN):
        return "settings"
    return "output" if given == "output" else "state"
