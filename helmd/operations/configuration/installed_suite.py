"""The suite as far as it can be read from the installed units, in case the configuration is faulty."""

import re

from helmd.model.layout import Layout
from helmd.model.suite.dependencies import find_cycle
from helmd.model.suite.names import service_of, timer_of, unit_of
from helmd.model.suite.service import Health, Registry, Service
from helmd.systemd.installed import is_ours, read_unit

_ONESHOT = "\nType=oneshot\n"
_SCHEDULE = re.compile(r"^OnCalendar=(.+)$", re.MULTILINE)
_AFTER = re.compile(r"^After=(\S+)$", re.MULTILINE)


def installed_suite(layout: Layout) -> Registry:
    """Return the services of Helm's installed units, with their order. Their only health check is a running process."""
    needs: dict[str, list[str]] = {}
    oneshots: set[str] = set()
    for path in sorted(layout.units.glob("hivematrix-*.service")):
        name, text = service_of(path.name), read_unit(path)
        if name and text and is_ours(text):
            needs[name] = [other for unit in _AFTER.findall(text) if (other := service_of(unit))]
            oneshots |= {name} if _ONESHOT in text else set()
    # Units that were rendered from different registries can have a cycle.
    while cycle := find_cycle(needs):
        needs[cycle[0]].remove(cycle[1])
    return Registry(
        {
            name: Service(
                name=name,
                type="oneshot" if name in oneshots else "command",
                schedule=_schedule(name, layout) if name in oneshots else "",
                description=f"installed as {unit_of(name)}",
                depends_on=tuple(other for other in found if other in needs),
                health=Health(check="process"),
            )
            for name, found in needs.items()
        }
    )


def _schedule(name: str, layout: Layout) -> str:
    timer = read_unit(layout.unit_file(timer_of(name))) or ""
    found = _SCHEDULE.search(timer) if is_ours(timer) else None
    return found.group(1) if found else ""
