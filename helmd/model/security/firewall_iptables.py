"""The rules that iptables-save(8) and ip6tables-save(8) print."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from helmd.model.security.firewall_rules import FilterChain, FilterRule, PacketFilter, Verdict, complement
from helmd.model.security.firewall_state import Ranges

_PLAIN: Mapping[str, Verdict] = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
_GOES_ON = {
    "LOG",
    "NFLOG",
    "MARK",
    "CONNMARK",
    "SECMARK",
    "CONNSECMARK",
    "TRACE",
    "AUDIT",
    "CT",
    "TCPMSS",
    "DSCP",
    "TOS",
}
"""Targets after which the next rule is looked at (iptables-extensions(8))."""
_WITHOUT_MEANING = {"-m", "--match", "--comment", "--reject-with", "--log-prefix", "--log-level", "--set-xmark"}
_POLICY = re.compile(r":(\S+) (\S+)")


def iptables_filter(saved: str) -> PacketFilter:
    """Return the table ``filter`` in what was SAVED; empty without one."""
    table, policies, rules = "", dict[str, str](), dict[str, list[FilterRule]]()
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif table != "filter":
            continue
        elif found := _POLICY.match(line):
            policies[found[1]] = found[2]
            rules[found[1]] = []
        elif line.startswith("-A "):
            words = shlex.split(line)
            rules.setdefault(words[1], []).append(_rule(words[2:]))
    chains = {
        name: FilterChain(tuple(found), "drop" if policies.get(name) == "DROP" else "accept" if name == "INPUT" else "")
        for name, found in rules.items()
    }
    return PacketFilter(chains, ("INPUT",) if "INPUT" in chains else ())


def _rule(words: Sequence[str]) -> FilterRule:
    rule, at = FilterRule(), 0
    while at < len(words):
        negated = words[at] == "!"
        at += negated
        option = words[at] if at < len(words) else ""
        end = at + 1
        while end < len(words) and words[end] != "!" and not words[end].startswith("-"):
            end += 1
        if option in ("--comment", "--log-prefix"):  # whose text may begin with a dash
            end = at + 2
        rule = _with_option(rule, option, words[at + 1 : end], negated)
        at = end
    return rule


def _with_option(rule: FilterRule, option: str, values: Sequence[str], negated: bool) -> FilterRule:
    """Return RULE with one more OPTION and its VALUES."""
    value = values[0] if values else ""
    if option in ("-j", "--jump", "-g", "--goto"):
        return _with_target(rule, value, option in ("-g", "--goto"))
    if option in _WITHOUT_MEANING:
        return rule
    if option in ("-p", "--protocol"):
        return replace(rule, never=rule.never or (value in ("tcp", "6", "all", "0")) == negated)
    if option in ("--dport", "--destination-port", "--dports", "--destination-ports"):
        ports = _ranges(value)
        return rule.with_ports(complement(ports) if negated else ports)
    if option in ("-i", "--in-interface"):
        if value == "lo":
            return rule if negated else replace(rule, never=True)
        return replace(rule, limited=True)
    if option in ("--ctstate", "--state"):
        return replace(rule, never=rule.never or ("NEW" in value.split(",")) == negated)
    if option == "--dst-type" and value == "LOCAL":
        return replace(rule, never=rule.never or negated)
    if option == "--syn":
        return replace(rule, never=rule.never or negated)
    return replace(rule, limited=True)


def _with_target(rule: FilterRule, target: str, goto: bool) -> FilterRule:
    if target in _PLAIN and not goto:
        return replace(rule, verdict=_PLAIN[target])
    if target in _GOES_ON:
        return rule
    return replace(rule, verdict="goto" if goto else "jump", target=target)


def _ranges(text: str) -> Ranges:
    found = []
    for each in text.split(","):
        first, _, last = each.partition(":")
        found.append((int(first or 0), int(last or (65535 if ":" in each else first))))
    return tuple(found)
