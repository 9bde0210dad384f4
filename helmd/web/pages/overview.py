"""The page that everybody lands on: how the services are, and what the reader may do."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from aiohttp import web

from helmd.model.identity.realm import GATEWAY, origin_of
from helmd.model.suite.names import HELM_SERVICE, SUITE_CLUSTER
from helmd.model.suite.service import Registry, Service
from helmd.model.units.status import Status
from helmd.web.api.sources import StatusSource
from helmd.web.auth.logins import Logins
from helmd.web.auth.roles import Identity, Role
from helmd.web.auth.same_origin import by_gateway
from helmd.web.pages.policy import HOME
from helmd.web.pages.rendering import HealthLine, Renderer
from helmd.web.pages.words import NOTHING, duration_text

Tone = Literal["ok", "warn", "error", "off"]

STATES: Mapping[str, tuple[Tone, str, str]] = {
    "healthy": ("ok", "circle-check", "works"),
    "succeeded": ("ok", "circle-check", "has done its work"),
    "scheduled": ("ok", "calendar-clock", "runs by schedule"),
    "running": ("ok", "circle-check", "runs"),
    "degraded": ("warn", "triangle-alert", "works in part"),
    "starting": ("warn", "loader-circle", "is starting"),
    "stopping": ("warn", "loader-circle", "is stopping"),
    "unhealthy": ("error", "circle-x", "does not work"),
    "flapping": ("error", "circle-x", "does not work"),
    "failed": ("error", "circle-x", "does not work"),
    "stopped": ("off", "circle-stop", "is switched off"),
    "unknown": ("off", "circle-help", "is not known yet"),
}
"""By the state of a service: its colour, its icon, and what users read who don't run it."""
_ORDER: Mapping[Tone, int] = {"error": 0, "warn": 1, "ok": 2, "off": 3}
_OWN = frozenset({HELM_SERVICE, SUITE_CLUSTER})
"""Services that are there before anybody has named any."""
_BEHIND = frozenset({GATEWAY, "core", "keycloak"})
"""Services with a URL that have no page for users."""


@dataclass(frozen=True, slots=True)
class Row:
    """One service as the page shows it."""

    name: str
    description: str
    tone: Tone
    icon: str
    state: str
    message: str
    link: str
    since: str
    """When its process began, ISO 8601; empty while it does not run."""
    uptime: str
    cpu: str
    memory: str
    restarts: int


@dataclass(frozen=True, slots=True)
class Permission:
    """Something that the reader may do. ``link`` and ``command`` may be empty."""

    text: str
    link: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class OverviewContext:
    """What the page shows."""

    rows: tuple[Row, ...]
    headline: str
    tone: Tone
    shows_figures: bool
    absent: "Absent | None"
    permissions: tuple[Permission, ...]
    read_only: bool
    now: str


class OverviewPage:
    """The handler. SUITE gives the services that are configured."""

    def __init__(
        self, monitor: StatusSource, suite: Callable[[], Registry], logins: Logins | None, renderer: Renderer
    ) -> None:
        self._monitor = monitor
        self._suite = suite
        self._logins = logins
        self._renderer = renderer

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET /"""
        if not request.path.startswith(HOME) and not by_gateway(request):
            # The session's cookie is for HOME alone.
            return web.Response(status=303, headers={"Location": HOME})
        identity: Identity = request["identity"]
        now = datetime.now(UTC)
        seen = rows(self._monitor.statuses(), self._suite(), identity, now)
        session = None
        if identity.via == "session" and self._logins is not None:
            session = self._logins.sessions.find(self._logins.sessions.digest(request))
        context = OverviewContext(
            rows=tuple(seen),
            headline=headline(seen),
            tone=worst(seen),
            shows_figures=identity.may(Role.TECHNICIAN),
            absent=absent(seen, identity),
            permissions=tuple(permissions(identity, bool(seen))),
            read_only=session is not None
            and self._logins is not None
            and self._logins.sessions.state(session) == "read_only",
            now=now.isoformat(timespec="seconds"),
        )
        return self._renderer.show(request, "overview.html", context)


def rows(statuses: Mapping[str, Status], suite: Registry, identity: Identity, now: datetime) -> list[Row]:
    """What IDENTITY sees of the services, those with a problem first."""
    gateway = origin_of(suite[GATEWAY].url) if GATEWAY in suite and suite[GATEWAY].url else ""
    found = [
        _row(status, suite.services.get(name), identity, gateway, now)
        for name, status in statuses.items()
        if _is_shown(name, suite.services.get(name), identity)
    ]
    return sorted(found, key=lambda row: (_ORDER[row.tone], row.name))


def _is_shown(name: str, service: Service | None, identity: Identity) -> bool:
    """Whether a service concerns IDENTITY: technicians see all, others what the gateway shows them."""
    if identity.may(Role.TECHNICIAN):
        return True
    if service is None or name == HELM_SERVICE or not service.visible or service.admin_only:
        return False
    return not service.billing_or_admin_only or identity.may(Role.BILLING)


def _row(status: Status, service: Service | None, identity: Identity, gateway: str, now: datetime) -> Row:
    name, state = status.service_name, status.state
    tone, glyph, plain = STATES.get(state, STATES["unknown"])
    runs_it = identity.may(Role.TECHNICIAN)
    has_page = service is not None and service.url and service.visible and not service.external
    link = f"{gateway}/{name}/" if gateway and has_page and name not in _BEHIND | {HELM_SERVICE} else ""
    started = status.started_at
    cpu, memory = status.cpu_percent, status.memory_mb
    return Row(
        name=name,
        description=service.description if service is not None else "",
        tone=tone,
        icon=glyph,
        state=state,
        message=status.health_message if runs_it else plain,
        link=link,
        since=started.isoformat(timespec="seconds") if started else "",
        uptime=duration_text((now - started).total_seconds()) if started else NOTHING,
        cpu=NOTHING if cpu is None else f"{cpu:.1f} %",
        memory=NOTHING if memory is None else f"{memory:,.0f} MiB",
        restarts=status.restarts,
    )


def worst(seen: Iterable[Row]) -> Tone:
    """The tone of the page: the worst of any service; those that are switched off count only where all are."""
    return min((row.tone for row in seen if row.tone != "off"), key=lambda tone: _ORDER[tone], default="off")


def headline(seen: list[Row]) -> str:
    """The state of all services in a sentence."""
    if not seen:
        return "No services to show"
    broken = [row.name for row in seen if row.tone == "error"]
    limited = [row.name for row in seen if row.tone == "warn"]
    works = [row for row in seen if row.tone == "ok"]
    if len(works) == len(seen) and _only_own(seen):
        return "No services yet"
    if broken:
        return f"{_list(broken)} {'does' if len(broken) == 1 else 'do'} not work" + (
            f"; {_list(limited)} in part" if limited else ""
        )
    if limited:
        return f"{_list(limited)} {'needs' if len(limited) == 1 else 'need'} attention"
    if not works:
        return "All services are switched off"
    off = len(seen) - len(works)
    working = f"{works[0].name} works" if len(works) == 1 else f"All {len(works)} services work"
    return working + (f", {off} {'is' if off == 1 else 'are'} off" if off else "")


def health_line(statuses: Mapping[str, Status], suite: Registry, identity: Identity) -> HealthLine:
    """What the top bar says to IDENTITY of the services of SUITE."""
    seen = rows(statuses, suite, identity, datetime.now(UTC))
    broken = [row.name for row in seen if row.tone == "error"]
    limited = [row.name for row in seen if row.tone == "warn"]
    works = sum(row.tone == "ok" for row in seen)
    tone = worst(seen)
    if broken:
        first = f"{broken[0]} failing" if len(broken) == 1 else f"{len(broken)} failing"
        sentence = first + (f", {len(limited)} affected" if limited else "")
        return HealthLine(tone, sentence, f"({len(broken) + len(limited)}) {broken[0]} failing")
    if limited:
        sentence = f"{limited[0]} needs attention" if len(limited) == 1 else f"{len(limited)} need attention"
        return HealthLine(tone, sentence, f"({len(limited)}) {limited[0]} degraded")
    if not seen:
        return HealthLine()
    off = len(seen) - works
    return HealthLine(tone, f"{works} healthy" + (f", {off} off" if off else ""))


def _only_own(seen: Iterable[Row]) -> bool:
    return all(row.name in _OWN for row in seen)


@dataclass(frozen=True, slots=True)
class Absent:
    """What would be on the page, and how to get it."""

    text: str
    steps: tuple[Permission, ...] = ()


def absent(seen: Iterable[Row], identity: Identity) -> Absent | None:
    """What to say where IDENTITY sees no service but Helm's own; None where there are others."""
    if not _only_own(seen):
        return None
    if not identity.may(Role.TECHNICIAN):
        return Absent(
            "The services that you may use would be listed here: whether each works, and a link that opens it. There is"
            " none for you yet. An administrator decides which there are, and who sees them."
        )
    text = "The services of the suite would be listed here: state, health, what they use, and since when they run."
    if not identity.may(Role.ADMIN):
        return Absent(f"{text} None is configured yet; an administrator of this machine adds them.")
    return Absent(
        f"{text} None is configured yet. On this machine:",
        (
            Permission("1. Name the services in ~/.config/hivematrix/services.toml", command="man services.toml"),
            Permission("2. Make what they need: databases, keys, units, the realm", command="helmctl setup"),
            Permission("3. Start them, in order", command="helmctl up"),
        ),
    )


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def permissions(identity: Identity, has_services: bool = True) -> list[Permission]:
    """What IDENTITY may do, the most useful first. HAS_SERVICES says whether there are services to do it with."""
    logs = f"{HOME}api/logs"
    may = []
    if identity.may(Role.ADMIN):
        may.append(Permission("Start, stop and restart services, on the machine", command="helmctl restart NAME"))
        may.append(Permission("Learn why a service does not work", command="helmctl why NAME"))
    if identity.may(Role.TECHNICIAN):
        may.append(Permission("Read and search the logs of all services", logs, "helmctl logs -f"))
        may.append(Permission("Read errors alone", f"{logs}?min_level=error", "helmctl logs -p err"))
    elif identity.may(Role.BILLING):
        of = sorted(identity.services or ())
        text = f"Read the logs of {_list(of)}" if of else "Read logs, once an admin has named services for billing"
        may.append(Permission(text, logs if of else ""))
    if identity.may(Role.TECHNICIAN):
        may.append(Permission("Write programs for all of this: the API", f"{HOME}docs/api"))
    else:
        if has_services:
            may.append(Permission("See on this page how the services are, and open one by its name in the list"))
        may.append(Permission("Report a problem to your administrator: say which service, and the time above"))
    return may
