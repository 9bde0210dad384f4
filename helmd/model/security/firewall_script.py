"""The text of the scripts that set up the firewall: what is to be open, in front of the parts in ``firewall/``."""

import re
from collections.abc import Iterable

from helmd.model.security.firewall import FirewallKind, FirewallPlan, FirewallPort

COMMON_PART = "common"
"""The name of what the scripts share; that of each one's own part is its kind."""

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 60


def script_file_name(kind: FirewallKind) -> str:
    """Return the name under which the script is saved."""
    return f"hivematrix-firewall-{kind}.sh"


def firewall_script(kind: FirewallKind, plan: FirewallPlan, common: str, own: str) -> str:
    """Return the script for PLAN, of the COMMON part and the part of KIND alone.

    Everything in it that comes from outside stands between single quotes and has no character that means something to
    sh(1), nft(8), iptables-restore(8) or ufw(8).
    """
    four = [str(each) for each in plan.networks if each.version == 4]
    six = [str(each) for each in plan.networks if each.version == 6]
    name = script_file_name(kind)
    return f"""\
#!/bin/sh
# HiveMatrix Helm: firewall of this machine, by {kind}. Run it as root:
#
#   sh {name} --dry-run              shows what it would do
#   sh {name} --confirm-within 60    does it, and undoes it after 60 s unless it is confirmed
#   sh {name} --confirm              keeps it, also after a reboot
#   sh {name} --undo                 removes what it made
#
# Ports by which SSH is reached are found when it runs, and opened first.
set -eu

KIND='{kind}'
# What others may reach besides: port, protocol, service.
OPEN='{_lines(plan.opened)}'
# Ports of the suite that they may not.
CLOSED='{_lines(plan.closed)}'
# From where; SSH is not confined.
LIMITED='{"yes" if plan.networks else "no"}'
SOURCES4='{" ".join(four)}'
SOURCES6='{" ".join(six)}'

{common}
{own}
main "$@"
"""


def _lines(ports: Iterable[FirewallPort]) -> str:
    return "\n".join(f"{each.port:d} {each.protocol} {_plain(each.service)}" for each in ports)


def _plain(name: str) -> str:
    """Return NAME without what could mean something anywhere in a script or in a rule's comment."""
    return _NOT_PLAIN.sub("-", name)[:_LONGEST_NAME] or "-"
