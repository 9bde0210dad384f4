"""The scripts that set up the firewall, composed of the package's parts."""

from pathlib import Path

from helmd.model.security.firewall import FirewallKind, FirewallPlan
from helmd.model.security.firewall_script import COMMON_PART, firewall_script


def script_for(share: Path, kind: FirewallKind, plan: FirewallPlan) -> str:
    """Return the script for PLAN. SHARE is the directory of the package's files."""
    common, own = ((share / "firewall" / f"{name}.sh").read_text() for name in (COMMON_PART, kind))
    return firewall_script(kind, plan, common, own)
