"""The rules that ``nft --json list ruleset`` prints (libnftables-json(5))."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from helmd.model.security.firewall_rules import FilterChain, FilterRule, IpFamily, PacketFilter, Policy, complement
from helmd.model.security.firewall_state import EVERY_PORT, Ranges

_FAMILIES: Mapping[IpFamily, tuple[str, ...]] = {"ipv4": ("ip", "inet"), "ipv6": ("ip6", "inet")}
_WITHOUT_MEANING = {"counter", "log", "comment", "mangle", "notrack", "meter", "set", "ct helper"}


def nftables_filters(ruleset: Mapping[str, Any], family: IpFamily) -> tuple[PacketFilter, ...]:
    """Return the tables of RULESET that see incoming packets of FAMILY. Those of iptables, which nft can't show whole,
    are not among them. Raises KeyError, TypeError, ValueError for what nft does not print.
    """
    entries = ruleset["nftables"]
    sets = {(e["set"]["family"], e["set"]["table"], e["set"]["name"]): e["set"] for e in entries if "set" in e}
    chains: dict[tuple[str, str], dict[str, FilterChain]] = {}
    incoming: dict[tuple[str, str], list[str]] = {}
    of_iptables = {
        (e["chain"]["family"], e["chain"]["table"]) for e in entries if "chain" in e and e["chain"]["name"] == "INPUT"
    }
    for entry in entries:
        if "chain" not in entry or entry["chain"]["family"] not in _FAMILIES[family]:
            continue
        chain = entry["chain"]
        table = chain["family"], chain["table"]
        if table in of_iptables:
            continue
        base = chain.get("hook") == "input" and chain.get("type") == "filter"
        policy: Policy = "" if not base else "drop" if chain.get("policy") == "drop" else "accept"
        rules = [
            rule
            for each in entries
            if "rule" in each and (each["rule"]["family"], each["rule"]["table"]) == table
            if each["rule"]["chain"] == chain["name"]
            for rule in _rules(each["rule"], family, sets)
        ]
        chains.setdefault(table, {})[chain["name"]] = FilterChain(tuple(rules), policy)
        if base:
            incoming.setdefault(table, []).append(chain["name"])
    return tuple(PacketFilter(chains[table], tuple(names)) for table, names in incoming.items())


Sets = Mapping[tuple[str, str, str], Mapping[str, Any]]


def _rules(given: Mapping[str, Any], family: IpFamily, sets: Sets) -> Sequence[FilterRule]:
    """Return a rule; several where a verdict map decides."""

    def elements(right: Any) -> list[Any]:
        """Return what RIGHT stands for, a named set looked up."""
        if isinstance(right, str) and right.startswith("@"):
            right = sets[given["family"], given["table"], right[1:]].get("elem", [])
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
        return right if isinstance(right, list) else [right]

    rule = FilterRule()
    for statement in given["expr"]:
        kind, value = next(iter(statement.items()))
        if kind == "match":
            rule = _matched(rule, value["left"], value["op"], elements(value["right"]), family)
        elif kind == "vmap":
            data = value["data"]
            if not isinstance(data, dict) or "set" not in data:
                return (replace(rule, unclear=True),)
            return [
                _with_verdict(_matched(rule, value["key"], "==", [element], family), *next(iter(verdict.items())))
                for element, verdict in data["set"]
            ]
        elif kind in ("accept", "drop", "reject", "jump", "goto", "return", "continue"):
            return (_with_verdict(rule, kind, value),)
        elif kind not in _WITHOUT_MEANING:
            rule = replace(rule, limited=True)
    return (rule,)


def _with_verdict(rule: FilterRule, kind: str, value: Any) -> FilterRule:
    if kind in ("jump", "goto"):
        return replace(rule, verdict="jump" if kind == "jump" else "goto", target=value["target"])
    if kind in ("drop", "reject"):
        return replace(rule, verdict="drop")
    if kind in ("accept", "return"):
        return replace(rule, verdict="accept" if kind == "accept" else "return")
    return rule


def _matched(rule: FilterRule, left: Any, operator: str, right: list[Any], family: IpFamily) -> FilterRule:
    """RULE, if in addition LEFT must be one of RIGHT, or must not (!=)."""
    what = _subject(left)
    negated = operator == "!="
    if operator not in ("==", "in", "!=") or "*" in right:
        return replace(rule, limited=True)
    if what in ("tcp dport", "th dport"):
        ports = tuple(port for each in right for port in _ports(each))
        return rule.with_ports(complement(ports) if negated else ports)
    fits: bool | None = None
    if what in ("meta l4proto", "ip protocol", "ip6 nexthdr"):
        fits = bool({"tcp", 6} & _words(right))
    elif what == "ct state":
        fits = "new" in _words(right)
    elif what in ("meta nfproto", "meta protocol"):
        fits = bool({family, family.replace("v4", "").replace("v", "")} & _words(right))
    elif what in ("meta iifname", "meta iif") and _words(right) == {"lo"}:
        fits = False
    elif what == "fib type" and _words(right) == {"local"}:
        fits = True
    elif what.startswith(("udp ", "icmp ", "icmpv6 ", "sctp ", "dccp ", "udplite ")):
        return replace(rule, never=True)
    if fits is None:
        other = (what.startswith("ip ") and family != "ipv4") or (what.startswith("ip6 ") and family != "ipv6")
        return replace(rule, never=True) if other else replace(rule, limited=True)
    return replace(rule, never=rule.never or fits == negated)


def _subject(left: Any) -> str:
    """Return what is compared, as nft's own language names it; empty for what is not known here."""
    if isinstance(left, dict):
        if "payload" in left and "protocol" in left["payload"]:
            return f"{left['payload']['protocol']} {left['payload']['field']}"
        for kind in ("meta", "ct"):
            if kind in left:
                return f"{kind} {left[kind]['key']}"
        if "fib" in left and left["fib"]["result"] == "type":
            return "fib type" if left["fib"]["flags"] in ("daddr", ["daddr"]) else ""
    return ""


def _words(right: list[Any]) -> set[Any]:
    return {each for each in right if isinstance(each, str | int)}


def _ports(element: Any) -> Ranges:
    """Return the ports that an element of a set is, with its comment, counter or timeout where it has one."""
    if isinstance(element, dict) and "elem" in element:
        element = element["elem"]["val"]
    if isinstance(element, dict):
        first, last = element["range"]
        return ((int(first), int(last)),)
    return ((int(element), int(element)),) if element != "*" else EVERY_PORT
