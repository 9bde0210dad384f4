"""Rules of a packet filter, reduced to their effect on a new TCP connection from another host."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from helmd.model.security.firewall_state import EVERY_PORT, Ranges, Reach, ReachablePorts

IpFamily = Literal["ipv4", "ipv6"]
Policy = Literal["accept", "drop", ""]
Verdict = Literal["accept", "drop", "jump", "goto", "return", ""]

_DEEPEST = 32
_OPENNESS: Mapping[Reach, int] = {"closed": 0, "limited": 1, "open": 2}


@dataclass(frozen=True, slots=True)
class FilterRule:
    """A rule. ``never`` says that it is about other packets; ``limited`` that it is about some such connections only.

    What limits it is an address, an interface, a rate. ``unclear`` stands for a rule that is not understood.
    """

    verdict: Verdict = ""
    target: str = ""
    ports: Ranges = EVERY_PORT
    never: bool = False
    limited: bool = False
    unclear: bool = False

    def with_ports(self, ports: Ranges) -> "FilterRule":
        """This rule, for those of its ports that are in PORTS."""
        both = tuple(
            (max(first, other), min(last, end))
            for first, last in self.ports
            for other, end in ports
            if max(first, other) <= min(last, end)
        )
        return replace(self, ports=both, never=self.never or not both)


@dataclass(frozen=True, slots=True)
class FilterChain:
    """A chain; ``policy`` is the verdict if no rule matches, empty for a chain that others jump to."""

    rules: tuple[FilterRule, ...] = ()
    policy: Policy = ""


@dataclass(frozen=True, slots=True)
class PacketFilter:
    """The chains of one table for one family, and which of them see incoming packets. All of these must accept one."""

    chains: Mapping[str, FilterChain] = field(default_factory=dict)
    incoming: tuple[str, ...] = ()


def complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the ports that are not in RANGES."""
    found, following = [], 1
    for first, last in sorted(ranges):
        if first > following:
            found.append((following, first - 1))
        following = max(following, last + 1)
    if following <= EVERY_PORT[0][1]:
        found.append((following, EVERY_PORT[0][1]))
    return tuple(found)


class UnclearRulesError(Exception):
    """A rule is not understood on which it depends what can be reached."""


def reachable(filters: Sequence[PacketFilter]) -> ReachablePorts:
    """Return the ports that all FILTERS let through. Raises UnclearRulesError."""
    rules = [rule for each in filters for chain in each.chains.values() for rule in chain.rules if not rule.never]
    starts = {1, *(first for rule in rules for first, _ in rule.ports)}
    starts |= {last + 1 for rule in rules for _, last in rule.ports if last < EVERY_PORT[0][1]}
    at = sorted(starts)
    opened: list[tuple[int, int]] = []
    limited: list[tuple[int, int]] = []
    for first, following in zip(at, [*at[1:], EVERY_PORT[0][1] + 1], strict=True):
        reach = min(
            (_reach(each, name, first) for each in filters for name in each.incoming),
            key=_OPENNESS.__getitem__,
            default="open",
        )
        if reach != "closed":
            _add(opened if reach == "open" else limited, first, following - 1)
    return ReachablePorts(tuple(opened), tuple(limited))


def _add(ranges: list[tuple[int, int]], first: int, last: int) -> None:
    """Append a range, joined with the one before it where they touch."""
    if ranges and ranges[-1][1] + 1 == first:
        ranges[-1] = (ranges[-1][0], last)
    else:
        ranges.append((first, last))


def _reach(filter_: PacketFilter, name: str, port: int) -> Reach:
    some: list[bool] = []
    decided = _walk(filter_, name, port, some, 0) or filter_.chains[name].policy
    if decided == "accept":
        return "open"
    return "limited" if some else "closed"


def _walk(filter_: PacketFilter, name: str, port: int, some: list[bool], depth: int) -> Policy:
    """Return what the chain decides, or nothing. SOME gets an element when a rule accepts some connections only."""
    if depth > _DEEPEST or name not in filter_.chains:
        raise UnclearRulesError
    for rule in filter_.chains[name].rules:
        if rule.never or not any(first <= port <= last for first, last in rule.ports):
            continue
        if rule.unclear:
            raise UnclearRulesError
        decided: Policy = ""
        if rule.verdict in ("jump", "goto"):
            decided = _walk(filter_, rule.target, port, some, depth + 1)
        elif rule.verdict in ("accept", "drop"):
            decided = "accept" if rule.verdict == "accept" else "drop"
        if rule.limited:
            if decided == "accept":
                some.append(True)
            continue
        if decided:
            return decided
        if rule.verdict in ("goto", "return"):
            return ""
    return ""
