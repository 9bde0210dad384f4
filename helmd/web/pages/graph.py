"""The dependency graph of services: layers by depth, drawn as SVG. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helmd.model.suite.dependencies import Graph
from helmd.web.pages.service_rows import Row, Tone

_NODE_WIDTH, _NODE_HEIGHT, _ACROSS, _DOWN, _EDGE = 132, 32, 184, 44, 8


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A service in the graph, in units of the drawing."""

    name: str
    tone: Tone
    state: str
    x: int
    y: int
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """An arrow from a service to one that it needs."""

    path: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class DependencyGraph:
    """The whole graph."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    width: int
    height: int
    node_width: int = _NODE_WIDTH
    node_height: int = _NODE_HEIGHT


def dependency_graph(seen: Sequence[Row], graph: Graph) -> DependencyGraph | None:
    """Return the dependencies among SEEN services, dependencies on the left, or None if there are none."""
    shown = {row.name: row for row in seen}
    needs = {name: tuple(other for other in graph.get(name, ()) if other in shown) for name in shown}
    joined = [name for name in shown if needs[name] or any(name in others for others in needs.values())]
    if not joined:
        return None
    depth = _depths(joined, needs)
    columns: dict[int, list[str]] = {}
    for name in sorted(joined):
        columns.setdefault(depth[name], []).append(name)
    nodes = {
        name: GraphNode(
            name,
            shown[name].tone,
            shown[name].state,
            column * _ACROSS + _EDGE,
            place * _DOWN + _EDGE,
            needs[name],
        )
        for column, names in columns.items()
        for place, name in enumerate(names)
    }
    edges = tuple(_edge(nodes[name], nodes[other]) for name in joined for other in needs[name])
    tallest = max(len(names) for names in columns.values())
    width = max(columns) * _ACROSS + _NODE_WIDTH + 2 * _EDGE
    return DependencyGraph(tuple(nodes.values()), edges, width, tallest * _DOWN - (_DOWN - _NODE_HEIGHT) + 2 * _EDGE)


def _depths(names: Sequence[str], needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return how many services come before each in the longest chain.

    A circle ends after as many steps as there are names.
    """
    depth = dict.fromkeys(names, 0)
    for _ in names:
        deeper = {name: max((depth[other] + 1 for other in needs[name]), default=0) for name in names}
        if deeper == depth:
            break
        depth = {name: min(number, len(names) - 1) for name, number in deeper.items()}
    return depth


def _edge(of: GraphNode, to: GraphNode) -> GraphEdge:
    x1, y1 = to.x + _NODE_WIDTH, to.y + _NODE_HEIGHT // 2
    x2, y2 = of.x, of.y + _NODE_HEIGHT // 2
    middle = (x1 + x2) // 2
    return GraphEdge(f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}", to.tone)
