"""Which of several services with a problem is the cause: others are affected, since they depend on it."""

from collections.abc import Collection
from dataclasses import dataclass

from helmd.model.suite.dependencies import Graph, closure


@dataclass(frozen=True, slots=True)
class CauseGroup:
    """A service with a problem, and those that have one because of it."""

    root: str
    affected: tuple[str, ...] = ()


def troubles(problems: Collection[str], graph: Graph) -> tuple[CauseGroup, ...]:
    """PROBLEMS, services in the order of their importance, grouped by cause. Each is in one group only."""
    needs = {name: closure(graph, [name]) - {name} for name in problems}
    roots = [name for name in problems if not any(other in needs[name] for other in problems)]
    taken = set(roots)
    found: list[CauseGroup] = []
    for root in roots:
        affected = tuple(name for name in problems if name not in taken and root in needs[name])
        taken.update(affected)
        found.append(CauseGroup(root, affected))
    # Services that depend on one another in a circle have no first one.
    return (*found, *(CauseGroup(name) for name in problems if name not in taken))
