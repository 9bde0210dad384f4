"""Limits of services that this host does not enforce."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from helmd.model.suite.service import Registry

_CONTROLLERS = (
    ("memory_high", "memory"),
    ("memory_max", "memory"),
    ("cpu_percent", "cpu"),
    ("tasks", "pids"),
)
"""Settings of ``limits`` and the cgroup controller that enforces each (systemd.resource-control(5))."""


class Unenforced(NamedTuple):
    """A controller that the user manager lacks, and the settings that have no effect because of that."""

    controller: str
    settings: tuple[str, ...]

    @property
    def sentence(self) -> str:
        verb = "is" if len(self.settings) == 1 else "are"
        return (
            f"{', '.join(self.settings)} {verb} not enforced on this host: systemd's user manager has no"
            f" {self.controller} controller"
        )


def unenforced(registry: Registry, controllers: Collection[str]) -> Iterator[Unenforced]:
    """Yield the limits in REGISTRY that need a controller which is not among CONTROLLERS."""
    for controller in dict.fromkeys(needed for _, needed in _CONTROLLERS):
        settings = tuple(
            f"limits.{key} of {name}"
            for name, service in registry.services.items()
            for key, needed in _CONTROLLERS
            if needed == controller and not service.external and getattr(service.limits, key) is not None
        )
        if settings and controller not in controllers:
            yield Unenforced(controller, settings)
