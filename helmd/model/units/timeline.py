"""What an entry of a service's timeline is about, from what systemd and Helm say of it."""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from helmd.model.suite.names import HELM_SERVICE

EventKind = Literal[
    "started", "starting", "stopped", "stopping", "restart", "reload", "crash", "oom", "failed", "health", "update",
    "configuration", "refused", "other",
]  # fmt: skip
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)

_HEALTH = re.compile(r"(?P<service>[a-z][a-z0-9_-]*) is (?:healthy|degraded|unhealthy|unknown): ")
"""How helmd logs that the health of a service has changed (`helmd.operations.monitoring.monitor`)."""
_OF_SYSTEMD: tuple[tuple[EventKind, re.Pattern[str]], ...] = (
    ("oom", re.compile(r"oom-kill|killed by the OOM killer")),
    ("crash", re.compile(r"(?:process exited, code=(?:killed|dumped))|(?:Main process exited, .*status=(?!0/))")),
    ("failed", re.compile(r"Failed with result|Failed to start|[Ss]tart request repeated too quickly|timed out")),
    ("restart", re.compile(r"Scheduled restart job")),
    ("reload", re.compile(r"Reload(?:ed|ing) ")),
    ("started", re.compile(r"^(?:Started|Finished) ")),
    ("starting", re.compile(r"^Starting ")),
    ("stopped", re.compile(r"^Stopped |Deactivated successfully|Succeeded\.")),
    ("stopping", re.compile(r"^Stopping ")),
)
"""Patterns of systemd's messages (src/core/service.c and unit.c of systemd 252), the first that fits counts."""
_OF_HELM: Mapping[str, EventKind] = {
    "start": "starting",
    "stop": "stopping",
    "restart": "restart",
    "reload": "reload",
    "apply": "configuration",
    "config": "configuration",
    "edit": "configuration",
    "enable": "configuration",
    "disable": "configuration",
    "install": "update",
    "update": "update",
    "rollback": "update",
}


def kind_of_systemd(message: str) -> EventKind:
    """Return what systemd says in MESSAGE, the first line of an entry about a unit."""
    return next((kind for kind, pattern in _OF_SYSTEMD if pattern.search(message)), "other")


def kind_of_change(action: str, result: str) -> EventKind:
    """Return what a record of Helm's is about: ACTION is a command ("modules update") or a route ("PUT
    /api/…/config").
    """
    if result == "refused":
        return "refused"
    words = re.findall(r"[a-z]+", action.lower())
    return next((_OF_HELM[word] for word in reversed(words) if word in _OF_HELM), "other")


def health_of_line(message: str) -> str | None:
    """Return the service whose health has changed, as helmd's own line MESSAGE says it, or None for any other line."""
    found = _HEALTH.match(message)
    return None if found is None or found["service"] == HELM_SERVICE else found["service"]
