"""Dependencies between services: start order, stop order, cycles."""

from collections.abc import Collection, Iterable, Mapping, Sequence

Graph = Mapping[str, Collection[str]]
"""Each name's dependencies."""


def find_cycle(graph: Graph) -> tuple[str, ...]:
    """Return a cycle of GRAPH, with its first name repeated at the end; empty if there is none."""
    done: set[str] = set()
    for root in graph:
        trail: list[str] = []
        pending: list[tuple[str, bool]] = [(root, False)]
        while pending:
            name, leaving = pending.pop()
            if leaving:
                trail.pop()
                done.add(name)
            elif name in trail:
                return (*trail[trail.index(name) :], name)
            elif name not in done:
                trail.append(name)
                pending.append((name, True))
                pending += [(needed, False) for needed in graph.get(name, ()) if needed in graph]
    return ()


def closure(graph: Graph, names: Iterable[str]) -> frozenset[str]:
    """Return NAMES and everything they depend on, directly or indirectly."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += graph.get(name, ())
    return frozenset(found)


def start_order(graph: Graph, names: Collection[str]) -> tuple[str, ...]:
    """Return NAMES with dependencies first, otherwise in the order of GRAPH. GRAPH must have no cycle."""
    ordered: list[str] = []
    seen: set[str] = set()
    for root in graph:
        pending = [(root, False)] if root in names else []
        while pending:
            name, leaving = pending.pop()
            if leaving and name in names:
                ordered.append(name)
            elif not leaving and name not in seen:
                seen.add(name)
                pending.append((name, True))
                pending += [(needed, False) for needed in reversed(tuple(graph.get(name, ())))]
    return tuple(ordered)


def stop_order(graph: Graph, names: Collection[str]) -> tuple[str, ...]:
    """Return NAMES with dependents first."""
    return tuple(reversed(start_order(graph, names)))


def dependents(graph: Graph, name: str) -> tuple[str, ...]:
    """Return the names that depend on NAME, directly or indirectly, in the order of GRAPH."""
    return tuple(other for other in graph if other != name and name in closure(graph, [other]))


def ready(graph: Graph, waiting: Sequence[str], healthy: Collection[str], within: Collection[str]) -> tuple[str, ...]:
    """Return the names in WAITING whose dependencies are all in HEALTHY; dependencies outside WITHIN are ignored."""
    return tuple(
        name for name in waiting if all(needed in healthy for needed in graph.get(name, ()) if needed in within)
    )
