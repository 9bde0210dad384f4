"""Who runs helmctl, and from where: for the audit trail."""

import os

from helmd.files.account_names import name_of_uid
from helmd.health.control_group import own_control_group
from helmd.model.identity.group_unit import unit_of_group
from helmd.model.identity.origin import Origin


def person() -> str:
    """Return who asked, for the log: the account, and who became it where sudo says so."""
    name = name_of_uid(os.getuid())
    behind = os.environ.get("SUDO_USER", "")
    return f"{name} (for {behind[:60]})" if behind and behind.isprintable() else name


def origin_here() -> Origin:
    """From where helmctl was called."""
    unit = unit_of_group(own_control_group())
    return Origin("helmctl", unit="" if unit is None else unit.unit)
