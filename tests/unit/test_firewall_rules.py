"""What rules of nftables and iptables let others reach."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helmd.model.security.firewall_iptables import iptables_filter
from helmd.model.security.firewall_nftables import nftables_filters
from helmd.model.security.firewall_rules import IpFamily, UnclearRulesError, complement, reachable
from helmd.model.security.firewall_state import EVERY_PORT, FirewallState, ReachablePorts, firewall_state_of
from helmd.operations.security.firewall_state import firewall_state

CLOSED = ReachablePorts()
ALL = ReachablePorts(EVERY_PORT)


def saved(*rules: str, policy: str = "DROP", chains: str = "") -> ReachablePorts:
    text = "\n".join(["*nat", "-A INPUT -j ACCEPT", "COMMIT", "*filter", f":INPUT {policy} [0:0]", chains, *rules])
    return reachable([iptables_filter(text)])


@pytest.mark.parametrize(
    ("rule", "opened"),
    [
        ("-p tcp -m tcp --dport 22 -j ACCEPT", ((22, 22),)),
        ("-p tcp -m multiport --dports 22,80:90 -j ACCEPT", ((22, 22), (80, 90))),
        ("-p tcp -m tcp ! --dport 1:65000 -j ACCEPT", ((65001, 65535),)),
        ("-j ACCEPT", EVERY_PORT),
        ("-p tcp --dport 22 -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT", ((22, 22),)),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", ()),
        ("-i lo -j ACCEPT", ()),
        ("! -i lo -p tcp --dport 22 -j ACCEPT", ((22, 22),)),
        ("-p udp --dport 22 -j ACCEPT", ()),
        ("-p icmp -m icmp --icmp-type 8 -j ACCEPT", ()),
        ('-p tcp --dport 22 -m comment --comment "-j DROP -s 1.2.3.4" -j ACCEPT', ((22, 22),)),
        ("-p tcp --dport 22 --syn -j ACCEPT", ((22, 22),)),
        ("-m addrtype --dst-type LOCAL -p tcp --dport 22 -j ACCEPT", ((22, 22),)),
        ('-p tcp --dport 22 -j LOG --log-prefix "-j ACCEPT "', ()),
    ],
)
def test_a_rule_of_iptables(rule: str, opened: tuple[tuple[int, int], ...]) -> None:
    assert saved(f"-A INPUT {rule}") == ReachablePorts(opened)


@pytest.mark.parametrize(
    "match", ["-s 10.0.0.0/8", "! -s 10.0.0.0/8", "-i eth1", "-m limit --limit 3/min", "-m set --match-set allowed src"]
)
def test_what_some_may_reach_is_limited(match: str) -> None:
    assert saved(f"-A INPUT {match} -p tcp --dport 5432 -j ACCEPT") == ReachablePorts((), ((5432, 5432),))
    assert saved(f"-A INPUT {match} -p tcp --dport 22 -j DROP", policy="ACCEPT") == ALL


def test_chains_are_followed() -> None:
    rules = (
        "-A INPUT -j mine",
        "-A mine -p tcp --dport 22 -j ACCEPT",
        "-A mine -p tcp --dport 23 -j RETURN",
        "-A mine -p tcp --dport 24:25 -g last",
        "-A mine -j DROP",
        "-A last -p tcp --dport 24 -j ACCEPT",
    )
    chains = ":mine - [0:0]\n:last - [0:0]"
    assert saved(*rules, policy="ACCEPT", chains=chains) == ReachablePorts(((22, 25),))
    assert saved(*rules, policy="DROP", chains=chains) == ReachablePorts(((22, 22), (24, 24)))


def test_a_chain_that_jumps_to_itself_is_not_understood() -> None:
    with pytest.raises(UnclearRulesError):
        saved("-A INPUT -j mine", "-A mine -j mine", chains=":mine - [0:0]")


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
STATE = {"ct": {"key": "state"}}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
ACCEPT, DROP = {"accept": None}, {"drop": None}


def ruleset(*rules: list[Any], policy: str = "accept", family: str = "inet", sets: Any = ()) -> dict[str, Any]:
    place = {"family": family, "table": "t"}
    base = {"type": "filter", "hook": "input", "prio": 0, "policy": policy}
    entries: list[Any] = [{"chain": {**place, "name": "input", **base}}, {"chain": {**place, "name": "other"}}]
    entries += [{"set": {**place, **each}} for each in sets]
    entries += [{"rule": {**place, "chain": "input", "expr": [{"counter": {"packets": 1}}, *rule]}} for rule in rules]
    return {"nftables": [{"metainfo": {}}, *entries]}


def nft(*rules: list[Any], ip: IpFamily = "ipv4", **more: Any) -> ReachablePorts:
    return reachable(nftables_filters(ruleset(*rules, **more), ip))


@pytest.mark.parametrize(
    ("rule", "opened"),
    [
        ([match(DPORT, 22)], ((22, 22),)),
        ([match(DPORT, {"set": [22, {"range": [80, 90]}]})], ((22, 22), (80, 90))),
        ([match(DPORT, {"set": [1, {"range": [3, 65535]}]}, "!=")], ((2, 2),)),
        ([match(DPORT, "@ports")], ((22, 22), (80, 90))),
        ([match(STATE, ["established", "related"], "in")], ()),
        ([match(STATE, ["established", "new"], "in"), match(DPORT, 22)], ((22, 22),)),
        ([match(STATE, "new"), match(DPORT, 22)], ((22, 22),)),
        ([match({"meta": {"key": "iifname"}}, "lo")], ()),
        ([match({"meta": {"key": "iifname"}}, "lo", "!="), match(DPORT, 22)], ((22, 22),)),
        ([match({"meta": {"key": "l4proto"}}, {"set": ["icmp", "ipv6-icmp"]})], ()),
        ([match({"meta": {"key": "l4proto"}}, "tcp"), match({"payload": {"protocol": "th", "field": "dport"}}, 22)],
         ((22, 22),)),
        ([match({"payload": {"protocol": "udp", "field": "dport"}}, 22)], ()),
        ([match({"meta": {"key": "nfproto"}}, "ipv6")], ()),
        ([match({"payload": {"protocol": "ip6", "field": "saddr"}}, "fe80::1")], ()),
        ([match({"fib": {"result": "type", "flags": "daddr"}}, "local"), match(DPORT, 22)], ((22, 22),)),
    ],
)  # fmt: skip
def test_a_rule_of_nftables(rule: list[Any], opened: tuple[tuple[int, int], ...]) -> None:
    ports = {
        "name": "ports",
        "type": "inet_service",
        "elem": [{"elem": {"val": 22, "comment": "x"}}, {"range": [80, 90]}],
    }
    assert nft([*rule, ACCEPT], [DROP], sets=[ports]) == ReachablePorts(opened)


def test_what_some_may_reach_is_limited_in_nftables() -> None:
    allowed = [match(SADDR, {"prefix": {"addr": "10.0.0.0", "len": 8}}), match(DPORT, 443), ACCEPT]
    assert nft(allowed, [DROP]) == ReachablePorts((), ((443, 443),))
    assert nft(allowed, [DROP], ip="ipv6") == CLOSED
    assert nft([match(SADDR, "@banned"), DROP], sets=[{"name": "banned"}]) == ALL


def test_verdict_maps_are_followed() -> None:
    states = {"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT], ["invalid", DROP]]}}}
    ports = {"vmap": {"key": DPORT, "data": {"set": [[22, ACCEPT], [80, {"jump": {"target": "other"}}]]}}}
    assert nft([states], [ports], policy="drop") == ReachablePorts(((22, 22),))
    with pytest.raises(UnclearRulesError):
        nft([{"vmap": {"key": DPORT, "data": "@services"}}])


def test_every_table_must_let_a_connection_through() -> None:
    both = ruleset([match(DPORT, 22), ACCEPT], [DROP])["nftables"]
    second = json.loads(json.dumps(ruleset([match(DPORT, {"range": [20, 30]}), ACCEPT], policy="drop")))["nftables"]
    for entry in second[1:]:
        next(iter(entry.values()))["table"] = "second"
    assert reachable(nftables_filters({"nftables": both + second}, "ipv4")) == ReachablePorts(((22, 22),))


def test_tables_of_the_other_protocol_and_of_iptables_do_not_count() -> None:
    assert nft([DROP], family="ip6") == ALL
    assert nft([DROP], family="ip6", ip="ipv6") == CLOSED
    of_iptables = ruleset([{"xt": {"type": "match", "name": "tcp"}}, DROP], family="ip")
    of_iptables["nftables"][1]["chain"]["name"] = "INPUT"
    assert reachable(nftables_filters(of_iptables, "ipv4")) == ALL


def test_without_any_rule_everything_is_open() -> None:
    assert reachable([]) == ALL
    assert complement(()) == EVERY_PORT and complement(EVERY_PORT) == ()


STATE_NOW = FirewallState(
    "", "nftables", True, "drop", ReachablePorts(((22, 22),), ((443, 443),)), ReachablePorts(((443, 443),))
)


def test_the_more_open_protocol_counts() -> None:
    assert [STATE_NOW.reach(port) for port in (22, 443, 80)] == ["open", "open", "closed"]
    assert STATE_NOW.reach(443, ipv6=False) == "limited" and STATE_NOW.reach(22, ipv4=False) == "closed"
    assert FirewallState("no service").reach(22) == "unknown"


def test_the_state_survives_its_way_as_json() -> None:
    assert firewall_state_of(json.dumps(STATE_NOW.document).encode()) == STATE_NOW


@pytest.mark.parametrize(
    "reply",
    [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100000, b'{"unknown": ""}', b"NaN"]
    + [
        json.dumps(STATE_NOW.document | {"ipv4": bad}).encode()
        for bad in (None, {"open": [[1]], "limited": []}, {"open": 3})
    ],
)
def test_another_reply_makes_the_state_unknown(reply: bytes) -> None:
    assert firewall_state_of(reply).unknown


@contextmanager
def service(path: Path, reply: bytes) -> Iterator[None]:
    """A socket that answers one connection."""

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(reply)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


def test_the_service_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    assert "hivematrix-firewall.socket" in firewall_state(path).unknown
    with service(path, json.dumps(STATE_NOW.document).encode()):
        assert firewall_state(path) == STATE_NOW


def test_a_service_that_says_nothing_makes_the_state_unknown(tmp_path: Path) -> None:
    with service(tmp_path / "socket", b""):
        assert "journalctl" in firewall_state(tmp_path / "socket").unknown
