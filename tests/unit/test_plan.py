"""Start order, stop order and cycles in dependency graphs."""

import itertools
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from helmd.model.suite.dependencies import closure, dependents, find_cycle, ready, start_order, stop_order

SUITE = {
    "postgres": (),
    "keycloak": ("postgres",),
    "core": ("keycloak",),
    "nexus": ("core", "keycloak"),
    "codex": ("postgres", "core"),
    "ticker": (),
}

NAMES = st.integers(0, 7).map("s{}".format)
GRAPHS = st.dictionaries(NAMES, st.lists(NAMES, max_size=4).map(tuple), max_size=8)


def acyclic(graph: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return GRAPH with only the edges from a higher number to a lower one."""
    return {name: tuple(other for other in needs if other < name and other in graph) for name, needs in graph.items()}


def test_the_suite() -> None:
    assert start_order(SUITE, SUITE) == ("postgres", "keycloak", "core", "nexus", "codex", "ticker")
    assert start_order(SUITE, {"nexus", "postgres"}) == ("postgres", "nexus")
    assert stop_order(SUITE, {"core", "nexus", "postgres"}) == ("nexus", "core", "postgres")
    assert closure(SUITE, ["nexus"]) == {"nexus", "core", "keycloak", "postgres"}
    assert dependents(SUITE, "core") == ("nexus", "codex")
    assert find_cycle(SUITE) == ()


def test_indirect_dependencies_determine_the_order() -> None:
    graph = {"last": ("middle",), "middle": ("first",), "first": ()}
    assert start_order(graph, {"last", "first"}) == ("first", "last")


@given(GRAPHS, st.sets(NAMES))
def test_dependencies_come_first(graph: dict[str, tuple[str, ...]], chosen: set[str]) -> None:
    graph = acyclic(graph)
    names = chosen & graph.keys()
    order = start_order(graph, names)
    assert sorted(order) == sorted(names)
    for name in order:
        for needed in (closure(graph, [name]) - {name}) & names:
            assert order.index(needed) < order.index(name)
    assert stop_order(graph, names) == order[::-1]


@given(GRAPHS)
def test_a_cycle_is_found_exactly_when_there_is_one(graph: dict[str, tuple[str, ...]]) -> None:
    within = {name: tuple(other for other in needs if other in graph) for name, needs in graph.items()}
    cycle = find_cycle(graph)
    assert bool(cycle) == any(name in closure(within, within[name]) for name in within)
    if cycle:
        assert cycle[0] == cycle[-1] and len(set(cycle[:-1])) == len(cycle) - 1
        assert all(after in graph[before] for before, after in itertools.pairwise(cycle))
    assert find_cycle(acyclic(graph)) == ()


def test_ready_ignores_dependencies_outside_the_operation() -> None:
    order = ("keycloak", "core", "nexus")
    assert ready(SUITE, order, set(), order) == ("keycloak",), "postgres takes no part"
    assert ready(SUITE, ("core", "nexus"), {"keycloak"}, order) == ("core",)
    assert ready(SUITE, ("nexus",), {"keycloak", "core"}, order) == ("nexus",)
    assert ready(SUITE, ("ticker", "nexus"), {"keycloak"}, SUITE) == ("ticker",)


def test_long_chains_and_dense_graphs_are_fast() -> None:
    count = 3000
    chain = {f"s{n}": (f"s{n + 1}",) if n < count - 1 else () for n in range(count)}
    assert start_order(chain, chain) == tuple(f"s{n}" for n in reversed(range(count)))
    assert find_cycle(chain) == () and len(closure(chain, ["s0"])) == count
    layers = {f"{side}{n}": (f"a{n - 1}", f"b{n - 1}") if n else () for n in range(60) for side in "ab"}
    order = start_order(layers, layers)
    assert len(order) == 120 and order[:2] == ("a0", "b0"), "2 to the power of 60 paths lead down"
    assert find_cycle(layers) == ()
