"""Services as rows of the overview: who sees which, state, use, and what happened in the last hours and days."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from typing import Literal
from urllib.parse import quote

from helmd.model.identity.realm import GATEWAY
from helmd.model.metrics.summaries import DayShare, MinuteValues
from helmd.model.suite.names import HELM_SERVICE, SUITE_CLUSTER
from helmd.model.suite.service import Registry, Service
from helmd.model.units.status import Status
from helmd.model.urls import origin_of
from helmd.operations.monitoring.code_versions import CodeVersion
from helmd.operations.monitoring.service_history import DAYS, ServiceRecord
from helmd.web.auth.roles import Identity, Role
from helmd.web.pages.words import NOTHING, duration_text, predicate, size_text

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
TONE_ORDER: Mapping[Tone, int] = {"error": 0, "warn": 1, "ok": 2, "off": 3}
OWN_SERVICES = frozenset({HELM_SERVICE, SUITE_CLUSTER})
"""Services that are there before anybody has named any."""
_BEHIND = frozenset({GATEWAY, "core", "keycloak"})
"""Services with a URL that have no page for users."""
_NOTHING_KNOWN = ServiceRecord()
_MIB = 1 << 20
_STEP_SECONDS, _STEPS = 180, 20
"""A line of an hour has a point for every three minutes: a row changes no more often because of it."""
_HEIGHT = 20
_LATEST_SECONDS = 300
"""How old a stored measurement may be that is shown until the next one: helmd was restarted."""
_STRIP_TOPS = {"warn": 6, "error": 11}
"""Days with trouble are lower, so that they are seen without colours, too."""


@dataclass(frozen=True, slots=True)
class StripPart:
    """The days of the strip that have one colour ("" where nothing is known), as one shape: a page has few elements."""

    tone: str
    path: str


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
    """Its own page at the gateway, for users; empty where it has none."""
    since: str
    """When its process began, ISO 8601; empty while it does not run."""
    uptime: str
    cpu: str
    memory: str
    restarts: int
    mode: str = ""
    version: CodeVersion | None = None
    """The code that it runs; None where that is not known."""
    cpu_value: str = ""
    memory_value: str = ""
    """The figures by which a table is sorted."""
    cpu_path: str = ""
    memory_path: str = ""
    """Lines of the last hour (SVG 2, path data), in a box of 19 by 20."""
    cpu_limit: str = ""
    memory_limit: str = ""
    memory_share: float | None = None
    """Percent of its limit."""
    errors: int = 0
    warnings: int = 0
    last_error: datetime | None = None
    days: tuple[StripPart, ...] = ()
    days_text: str = ""
    verbs: tuple[str, ...] = ()
    """What the reader may do with it now."""
    keeps: str = ""
    """Why it can't be controlled; empty where it can."""

    @property
    def logs(self) -> str:
        """The query that shows its entries."""
        return quote(f"service:{self.name}")


def rows(
    statuses: Mapping[str, Status],
    suite: Registry,
    identity: Identity,
    now: datetime,
    records: Mapping[str, ServiceRecord] | None = None,
    versions: Mapping[str, CodeVersion] | None = None,
) -> list[Row]:
    """Return what IDENTITY sees of the services, those with a problem first. RECORDS are their last days.

    VERSIONS are the code that they run.
    """
    gateway = origin_of(suite[GATEWAY].url) if GATEWAY in suite and suite[GATEWAY].url else ""
    records, versions = records or {}, versions or {}
    found = [
        _row(
            status,
            suite.services.get(name),
            identity,
            gateway,
            now,
            records.get(name, _NOTHING_KNOWN),
            versions.get(name),
        )
        for name, status in statuses.items()
        if _is_shown(name, suite.services.get(name), identity)
    ]
    return sorted(found, key=lambda row: (TONE_ORDER[row.tone], row.name))


def _is_shown(name: str, service: Service | None, identity: Identity) -> bool:
    """Return whether a service concerns IDENTITY: technicians see all, others what the gateway shows them."""
    if identity.may(Role.TECHNICIAN):
        return True
    if service is None or name == HELM_SERVICE or not service.visible or service.admin_only:
        return False
    return not service.billing_or_admin_only or identity.may(Role.BILLING)


def _row(
    status: Status,
    service: Service | None,
    identity: Identity,
    gateway: str,
    now: datetime,
    record: ServiceRecord,
    version: CodeVersion | None,
) -> Row:
    name, state = status.service_name, status.state
    tone, glyph, plain = STATES.get(state, STATES["unknown"])
    has_page = service is not None and service.url and service.visible and not service.external
    link = f"{gateway}/{name}/" if gateway and has_page and name not in _BEHIND | {HELM_SERVICE} else ""
    started = status.started_at
    common = {
        "name": name,
        "description": service.description if service is not None else "",
        "tone": tone,
        "icon": glyph,
        "state": state,
        "link": link,
        "since": started.isoformat(timespec="seconds") if started else "",
        "uptime": duration_text((now - started).total_seconds()) if started else NOTHING,
    }
    cpu, memory = status.cpu_percent, status.memory_mb
    if started is not None:
        cpu = latest(record.cpu, started, now) if cpu is None else cpu
        memory = latest(record.memory, started, now) if memory is None else memory
    figures = {
        "cpu": NOTHING if cpu is None else f"{cpu:.1f} %",
        "memory": NOTHING if memory is None else size_text(memory * _MIB),
        "restarts": max(record.restarts, status.restarts),
    }
    if not identity.may(Role.TECHNICIAN):
        return Row(**common, **figures, message=plain)  # type: ignore[arg-type]
    limits = service.limits if service is not None else None
    most = (limits.memory_max or limits.memory_high) if limits is not None else None
    days = strip(record.days, now)
    may = identity.may(Role.ADMIN)
    return Row(
        **common,  # type: ignore[arg-type]
        **figures,  # type: ignore[arg-type]
        message=predicate(status.health_message, name),
        mode=status.mode or "",
        version=version,
        cpu_value="" if cpu is None else f"{cpu:.3f}",
        memory_value="" if memory is None else f"{memory:.1f}",
        cpu_path=spark(record.cpu, now),
        memory_path=spark(record.memory, now),
        cpu_limit=f"of {limits.cpu_percent} %" if limits is not None and limits.cpu_percent else "",
        memory_limit=f"of {size_text(most)}" if most else "",
        memory_share=100 * memory * _MIB / most if most and memory is not None else None,
        errors=record.levels.get("ERROR", 0) + record.levels.get("CRITICAL", 0),
        warnings=record.levels.get("WARNING", 0),
        last_error=record.last_error,
        days=days,
        days_text=strip_text(record.days),
        verbs=verbs(status) if may else (),
        keeps=kept_why(status, service) if may else "",
    )


def verbs(status: Status) -> tuple[str, ...]:
    """Return what may be done with a service in its state: "start", "restart", "stop"."""
    if status.unit is None or status.service_name == HELM_SERVICE:
        return ()
    return ("restart", "stop") if status.status in ("running", "starting", "error") else ("start",)


def kept_why(status: Status, service: Service | None) -> str:
    """Return why a service can't be started or stopped here; empty where it can."""
    if service is not None and service.external:
        return "It is external: Helm watches it, and does not run it."
    if status.service_name == HELM_SERVICE:
        return "Helm does not stop itself. On the machine: systemctl --user restart helmd"
    return ""


def latest(values: MinuteValues, started: datetime, now: datetime) -> float | None:
    """Return the last stored value of the process that began at STARTED, if it is not old."""
    if not values.minutes or values.minutes[-1] < max(started.timestamp(), now.timestamp() - _LATEST_SECONDS):
        return None
    return values.values[-1]


def spark(values: MinuteValues, now: datetime) -> str:
    """Return the line of the last hour, from 0 to a little over its peak; with gaps where nothing was measured."""
    return _spark(values, (int(now.timestamp()) // _STEP_SECONDS - _STEPS) * _STEP_SECONDS)


@lru_cache(maxsize=512)
def _spark(values: MinuteValues, begun: int) -> str:
    peaks: dict[int, float] = {}
    for minute, value in zip(values.minutes, values.values, strict=True):
        place = (minute - begun) // _STEP_SECONDS
        if 0 <= place < _STEPS:
            peaks[place] = max(value, peaks.get(place, 0.0))
    if len(peaks) < 2:
        return ""
    most = max(*peaks.values(), 0.001) * 1.15
    parts = []
    for place, value in peaks.items():
        parts.append(f"{' ' if place - 1 in peaks else 'M'}{place} {_HEIGHT - 1 - round(value / most * (_HEIGHT - 2))}")
    return "".join(parts)


def strip(days: Mapping[date, DayShare], now: datetime) -> tuple[StripPart, ...]:
    """Return the last 90 days, the oldest on the left, two units wide each."""
    today = now.astimezone(UTC).date()
    tones = [_tone_of(days.get(today - timedelta(days=DAYS - 1 - number))) for number in range(DAYS)]
    paths: dict[str, list[str]] = {}
    begins = 0
    for tone, same in groupby(tones):
        width = 2 * len(list(same))
        paths.setdefault(tone, []).append(f"M{begins} {_STRIP_TOPS.get(tone, 1)}h{width}V17h-{width}z")
        begins += width
    return tuple(StripPart(tone, "".join(parts)) for tone, parts in paths.items())


def strip_text(days: Mapping[date, DayShare]) -> str:
    """Return the strip for who does not see it."""
    if not days:
        return "Nothing is known of the last 90 days"
    mean = sum(share.mean for share in days.values()) / len(days)
    bad = sum(_tone_of(share) in ("warn", "error") for share in days.values())
    return f"Healthy {100 * mean:.2f} % of {len(days)} known {'day' if len(days) == 1 else 'days'}, {bad} with trouble"


def _tone_of(share: DayShare | None) -> str:
    if share is None:
        return ""
    return "ok" if share.least >= 1 or share.mean >= 0.9995 else "warn" if share.mean >= 0.95 else "error"


def worst(seen: Iterable[Row]) -> Tone:
    """Return the tone of the page: the worst of any service; those that are switched off count only where all are."""
    return min((row.tone for row in seen if row.tone != "off"), key=lambda tone: TONE_ORDER[tone], default="off")
