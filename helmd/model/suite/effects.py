"""Whom it touches when services are stopped or restarted, as sentences for who is asked whether to do it."""

from collections.abc import Collection, Iterator

from helmd.model.counted import counted
from helmd.model.suite.composition import dependencies
from helmd.model.suite.dependencies import dependents
from helmd.model.suite.names import SUITE_CLUSTER
from helmd.model.suite.service import Registry

_LOSSES = {
    "nexus": "Nobody reaches any service, or Helm's pages, through the gateway meanwhile.",
    "core": "Nobody can log in, and services get no tokens meanwhile.",
    "keycloak": "Nobody can log in meanwhile; who is logged in stays so for a while.",
    SUITE_CLUSTER: "Services with a database can't read or write it meanwhile.",
}
_NAMED = 3


def effect_text(action: str, names: Collection[str], registry: Registry) -> str:
    """Return the effects of ACTION on services other than NAMES; empty if there are none."""
    return " ".join(_sentences(names, registry)) if action in ("stop", "restart") else ""


def _sentences(names: Collection[str], registry: Registry) -> Iterator[str]:
    graph = dependencies(registry)
    touched = [
        other
        for other in graph
        if other not in names and any(other in dependents(graph, name) for name in names if name in graph)
    ]
    if touched:
        who = ", ".join(touched) if len(touched) <= _NAMED else counted(len(touched), "other service")
        yield f"{who} {'depends' if len(touched) == 1 else 'depend'} on {'it' if len(names) == 1 else 'them'}."
    for name in names:
        if name in _LOSSES and (name in graph or name == SUITE_CLUSTER):
            yield _LOSSES[name]
