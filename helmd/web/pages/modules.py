"""The pages of modules, which Helm installs from git, and of apps, which the machine has and they depend on."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from aiohttp import web

from helmd.model.api.apps import AppBody, AppsReply
from helmd.model.api.modules import AvailableModule, ModuleBody, ModuleHistoryBody, ModulePlanReply
from helmd.model.counted import counted
from helmd.model.errors import HelmError
from helmd.model.suite.names import HELM_SERVICE
from helmd.model.suite.service import Registry
from helmd.model.units.status import Status, why_not_serving
from helmd.web.api.sources import StatusSource
from helmd.web.pages.overview import STATES, Tone
from helmd.web.pages.rendering import Renderer

SHORT_COMMIT = 12
_HISTORY = 20
VERSION_LOOKS: Mapping[str, tuple[Tone, str]] = {
    "active": ("ok", "circle-check"),
    "kept": ("off", "history"),
    "built": ("off", "circle-dashed"),
    "building": ("warn", "loader-circle"),
    "failed": ("error", "circle-x"),
    "removed": ("off", "minus"),
}


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """A module as the page shows it. ``previous`` is the newest commit that served before; empty for none."""

    module: ModuleBody
    description: str
    state: str
    tone: Tone
    icon: str
    since: datetime | None
    previous: str
    history: Sequence[ModuleHistoryBody]
    update: ModulePlanReply | None = None
    """What is known of its update; None where there is none, as far as is known."""
    why: str = ""
    """Why it does not serve as it should, or is not started; empty where there is nothing to say."""


@dataclass(frozen=True, slots=True)
class OwnRow:
    """A service of the suite that Helm did not install."""

    name: str
    description: str
    place: str
    state: str
    tone: Tone
    icon: str


@dataclass(frozen=True, slots=True)
class ModulesContext:
    """What the template of modules is given."""

    modules: Sequence[ModuleRow]
    own: Sequence[OwnRow]
    available: Sequence[AvailableModule]
    headline: str
    checked_at: datetime | None
    """Time by which every module was checked for updates; None without modules, or before the first check."""
    looks: Mapping[str, tuple[Tone, str]]


@dataclass(frozen=True, slots=True)
class AppsContext:
    """What the template of apps is given."""

    reply: AppsReply
    leading: Sequence[AppBody]
    packages: Sequence[AppBody]
    headline: str
    tone: Tone


class AppsSource(Protocol):
    """Looks at the machine."""

    async def report(self) -> AppsReply: ...


class ModulePages:
    """The handlers. MODULES, AVAILABLE and PLAN read the disk, SUITE gives the services that are configured."""

    def __init__(
        self,
        monitor: StatusSource,
        suite: Callable[[], Registry],
        modules: Callable[[], Sequence[ModuleBody]],
        available: Callable[[], Sequence[AvailableModule]],
        apps: AppsSource,
        plan: Callable[[str], ModulePlanReply],
        renderer: Renderer,
    ) -> None:
        self._monitor, self._suite = monitor, suite
        self._modules, self._available = modules, available
        self._apps, self._plan = apps, plan
        self._renderer = renderer

    async def modules(self, request: web.Request) -> web.StreamResponse:
        """GET /modules"""
        modules, available = await asyncio.gather(asyncio.to_thread(self._modules), asyncio.to_thread(self._available))
        plans = await asyncio.to_thread(self._plans, modules)
        context = modules_context(modules, available, self._suite(), self._monitor.statuses(), plans)
        return self._renderer.show(request, "modules.html", context)

    def _plans(self, modules: Sequence[ModuleBody]) -> Mapping[str, ModulePlanReply]:
        """Return the plans of those that were looked at."""
        found = {}
        for module in modules:
            if module.checked_at is not None:
                with suppress(HelmError):
                    # It may have been removed since.
                    found[module.name] = self._plan(module.name)
        return found

    async def apps(self, request: web.Request) -> web.StreamResponse:
        """GET /apps"""
        return self._renderer.show(request, "apps.html", apps_context(await self._apps.report()))


def modules_context(
    modules: Sequence[ModuleBody],
    available: Sequence[AvailableModule],
    suite: Registry,
    statuses: Mapping[str, Status],
    plans: Mapping[str, ModulePlanReply] = MappingProxyType({}),
) -> ModulesContext:
    """Return the MODULES by name, the services beside them, and what of the catalogue is not installed.

    PLANS are what is known of their updates.
    """
    rows = [_module_row(each, suite, statuses, plans.get(each.name)) for each in modules]
    names = {each.name for each in modules}
    own = [
        OwnRow(name, service.description, str(service.path or ""), *_state(name, statuses))
        for name, service in suite.services.items()
        if name not in names and name != HELM_SERVICE and service.type in ("python", "command", "oneshot")
    ]
    missing = [each for each in available if not each.present and each.name not in names]
    held, behind = sum(each.held for each in modules), sum(row.update is not None for row in rows)
    text = f"{counted(len(rows), 'module')} from git"
    text += f", {behind} with an update" if behind else ""
    text += f", {held} held" if held else ""
    looked = [each.checked_at for each in modules if not each.trouble]
    checked = min((each for each in looked if each is not None), default=None) if all(looked) else None
    return ModulesContext(rows, own, missing, text if rows else "No module from git yet", checked, VERSION_LOOKS)


def _state(name: str, statuses: Mapping[str, Status]) -> tuple[str, Tone, str]:
    state = statuses[name].state if name in statuses else "unknown"
    tone, icon, _ = STATES.get(state, STATES["unknown"])
    return state, tone, icon


def _module_row(
    module: ModuleBody, suite: Registry, statuses: Mapping[str, Status], known: ModulePlanReply | None
) -> ModuleRow:
    service = suite.services.get(module.name)
    active = next((each for each in module.versions if each.id == module.active), None)
    plan = known.plan if known is not None else None
    waits = plan is not None and plan.before == module.commit != plan.after and plan.ref == module.ref
    state, tone, icon = _state(module.name, statuses)
    status = statuses.get(module.name)
    kept = next((each.commit for each in module.versions if each.state == "kept"), "")
    return ModuleRow(
        module,
        service.description if service is not None else "",
        state,
        tone,
        icon,
        active.made_at if active is not None else None,
        kept[:SHORT_COMMIT],
        module.history[:_HISTORY],
        known if waits else None,
        why_not_serving(status) if status is not None else "",
    )


def apps_context(reply: AppsReply) -> AppsContext:
    """Return what the machine has, updates first in the sentence."""
    waiting = [app for app in reply.apps if app.update is not None]
    missing = [app for app in reply.apps if app.version is None and app.required]
    secure = sum(app.security for app in waiting)
    tone: Tone = "error" if missing else "warn" if secure or reply.reboot_required or reply.outdated else "ok"
    parts = []
    if missing:
        parts.append(f"{counted(len(missing), 'app')} missing")
    if waiting:
        parts.append(counted(len(waiting), "update") + (f", {secure} of them for security" if secure else ""))
    if reply.reboot_required:
        parts.append("a reboot is needed")
    text = "; ".join(parts)
    leading = {"postgresql", "java", "keycloak", "python"}
    return AppsContext(
        reply,
        [app for app in reply.apps if app.name in leading],
        [app for app in reply.apps if app.name not in leading],
        f"{text[:1].upper()}{text[1:]}" if text else "Everything is installed and up to date",
        tone,
    )
