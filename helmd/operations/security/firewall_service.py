"""hivematrix-firewall@.service: reports to a client of its socket which ports the firewall leaves open.

It runs with CAP_NET_ADMIN, which reading the rules requires. It reads nothing from the client, and reports ports only,
no addresses and no rules.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helmd.model.security.firewall_iptables import iptables_filter
from helmd.model.security.firewall_nftables import nftables_filters
from helmd.model.security.firewall_rules import IpFamily, PacketFilter, UnclearRulesError, reachable
from helmd.model.security.firewall_state import EVERY_PORT, FirewallState, ReachablePorts

_COMMANDS = Path("/usr/sbin")
_SECONDS = 5.0
_LARGEST = 16 << 20
"""Maximum size of the rules in bytes."""
_FAMILIES: tuple[tuple[IpFamily, str], ...] = (("ipv4", "ip"), ("ipv6", "ip6"))


class UnreadableRulesError(Exception):
    """The rules can't be read; the text is a sentence."""


def _printed(name: str, *words: str) -> str:
    """Return the output of the program NAME, empty if it is not installed. Raises UnreadableRulesError."""
    program = _COMMANDS / name
    if not program.exists():
        return ""
    try:
        done = subprocess.run(
            [str(program), *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=True, env={}
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnreadableRulesError(f"{program} failed: {error}") from None
    if len(done.stdout) > _LARGEST:
        raise UnreadableRulesError(f"{program} prints more than {_LARGEST >> 20} MiB of rules")
    return done.stdout.decode("utf-8", "replace")


def _check_no_legacy_tables() -> None:
    """Raise UnreadableRulesError if there are rules of the kernel's older packet filter."""
    for name in ("ip_tables_names", "ip6_tables_names"):
        try:
            tables = Path("/proc/self/net", name).read_text().split()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UnreadableRulesError(f"/proc/net/{name} can't be read: {error.strerror}") from None
        if "filter" in tables:
            raise UnreadableRulesError("there are rules of iptables-legacy, which are not looked at")


def _has_iptables_chains(ruleset: dict[str, Any]) -> bool:
    return any("chain" in each and each["chain"]["name"] == "INPUT" for each in ruleset["nftables"])


def read_firewall() -> FirewallState:
    """Return the present state, which is unknown if rules can't be read or interpreted."""
    try:
        _check_no_legacy_tables()
        if not any((_COMMANDS / name).exists() for name in ("nft", "iptables-nft-save")):
            return FirewallState("neither nft nor iptables is installed, by which rules are read")
        ruleset = json.loads(_printed("nft", "--json", "list", "ruleset") or '{"nftables": []}')
        saved = {family: _printed(f"{prefix}tables-nft-save") for family, prefix in _FAMILIES}
        if _has_iptables_chains(ruleset) and not any(saved.values()):
            return FirewallState("there are rules of iptables, which is not installed any more")
        return _judged(ruleset, saved)
    except UnreadableRulesError as error:
        return FirewallState(str(error))
    except (UnclearRulesError, ValueError, KeyError, TypeError, IndexError):
        return FirewallState("there are rules that are not understood")


def _judged(ruleset: dict[str, Any], saved: dict[IpFamily, str]) -> FirewallState:
    """Return the effect of the rules. Raises UnclearRulesError, and as the parsers."""
    of_iptables = {family: iptables_filter(text) for family, text in saved.items()}
    of_nft = {family: nftables_filters(ruleset, family) for family, _ in _FAMILIES}
    found = {family: reachable((of_iptables[family], *of_nft[family])) for family, _ in _FAMILIES}
    active = any(ports.opened != EVERY_PORT for ports in found.values())
    opened = sum(last - first + 1 for ports in found.values() for first, last in ports.opened)
    kinds = (
        [] if not active else [*_kinds(ruleset, list(of_iptables.values()), [f for fs in of_nft.values() for f in fs])]
    )
    return FirewallState(
        "",
        kinds[0] if kinds else "",
        active,
        "accept" if opened > EVERY_PORT[0][1] else "drop",
        found["ipv4"],
        found["ipv6"],
    )


def _kinds(ruleset: dict[str, Any], of_iptables: list[PacketFilter], of_nft: list[PacketFilter]) -> Iterator[str]:
    """Yield the tools that manage the rules, the most specific first."""
    if any("ufw-user-input" in each.chains for each in of_iptables) and any(map(_closes, of_iptables)):
        yield "ufw"
    if any("table" in each and each["table"]["name"] == "firewalld" for each in ruleset["nftables"]):
        yield "firewalld"
    if any(map(_closes, of_nft)):
        yield "nftables"
    if any(map(_closes, of_iptables)):
        yield "iptables"


def _closes(filter_: PacketFilter) -> bool:
    return reachable((filter_,)) != ReachablePorts(EVERY_PORT)


def main() -> int:
    """Print the state as JSON: stdout is the client's connection."""
    print(json.dumps(read_firewall().document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
