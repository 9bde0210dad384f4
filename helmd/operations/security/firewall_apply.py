"""As root: runs the scripts that set up the firewall, and the stored ones of pending and confirmed rules."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from helmd.model.errors import HelmError
from helmd.model.security.firewall import FirewallKind, FirewallPlan, FirewallPort
from helmd.model.security.firewall_script import script_file_name

STATE = Path("/var/lib/hivematrix-firewall")
"""Directory in which the scripts store themselves, as in ``firewall/common.sh``."""
CONFIRM_COMMAND = "sudo helmctl security confirm"

_RUN = Path("/run")


def plan_document(plan: FirewallPlan) -> dict[str, Any]:
    """Return PLAN as JSON, for `plan_of_document`."""

    def ports(found: Sequence[FirewallPort]) -> list[dict[str, Any]]:
        return [{"port": each.port, "protocol": each.protocol, "service": each.service} for each in found]

    return {
        "opened": ports(plan.opened),
        "closed": ports(plan.closed),
        "networks": [str(each) for each in plan.networks],
    }


def plan_of_document(document: Any) -> FirewallPlan:
    """Return the plan that another account's process printed. Raises HelmError for anything else."""

    def ports(name: str) -> tuple[FirewallPort, ...]:
        return tuple(_port(each) for each in document[name])

    try:
        return FirewallPlan(ports("opened"), ports("closed"), tuple(ip_network(each) for each in document["networks"]))
    except (KeyError, TypeError, ValueError):
        raise HelmError("helmctl of the suite's account printed no plan for the firewall") from None


def _port(given: Mapping[str, Any]) -> FirewallPort:
    port, protocol, service = given["port"], given["protocol"], given["service"]
    if type(port) is not int or not 0 < port < 65536 or protocol not in ("tcp", "udp"):
        raise ValueError
    return FirewallPort(port, protocol, str(service))


def run_new_script(kind: FirewallKind, text: str, words: Sequence[str]) -> int:
    """Run the script TEXT with the options WORDS; return its exit status.

    Its output is that of this process.
    """
    with tempfile.TemporaryDirectory(prefix="hivematrix-firewall-", dir=_RUN) as place:
        script = Path(place, script_file_name(kind))
        script.write_text(text)
        return _run(script, words)


def run_kept_script(option: str, states: Sequence[str]) -> int:
    """Run the stored script with one OPTION, for the first existing one of STATES (pending, confirmed).

    Raises HelmError if there is none.
    """
    for state in states:
        script = STATE / state / "script"
        if script.is_file():
            return _run(script, [option])
    waits = "no rules wait to be confirmed: they were undone when their time was over, or confirmed before"
    raise HelmError(waits if option == "--confirm" else "there are no firewall rules of Helm's to remove")


def _run(script: Path, words: Sequence[str]) -> int:
    sys.stdout.flush()
    # From SSH_CONNECTION the script knows the port of the current login.
    kept = {name: os.environ[name] for name in ("SSH_CONNECTION",) if name in os.environ}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HIVEMATRIX_CONFIRM_COMMAND": CONFIRM_COMMAND, **kept}
    return subprocess.run(
        ["/bin/sh", str(script), *words], stdin=subprocess.DEVNULL, env=environment, check=False
    ).returncode
