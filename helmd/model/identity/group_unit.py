"""Which unit a control group belongs to."""

from typing import NamedTuple

_UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")
"""Types of units that have control groups of their own, besides slices (systemd.unit(5))."""


class GroupUnit(NamedTuple):
    """The unit of a control group: of the user manager of UID, or with None of the system manager."""

    unit: str
    manager: int | None


def unit_of_group(path: str) -> GroupUnit | None:
    """Return the unit that the control group at PATH belongs to, as systemd has it, or None if it belongs to none.

    The first unit in the path counts, and below a user manager the first one there: what is further down was made by
    the unit itself, under any name (Delegate= in systemd.resource-control(5)).
    """
    parts = [part.removeprefix("_") for part in path.split("/") if part]
    found = _first_unit(parts)
    if found is None:
        return None
    unit = parts[found]
    uid = unit.removeprefix("user@").removesuffix(".service")
    if unit != f"user@{uid}.service" or not uid.isdecimal():
        return GroupUnit(unit, None)
    inner = parts[found + 1 :]
    below = _first_unit(inner)
    return GroupUnit(unit, None) if below is None else GroupUnit(inner[below], int(uid))


def _first_unit(parts: list[str]) -> int | None:
    for number, part in enumerate(parts):
        if part.endswith(_UNIT_SUFFIXES):
            return number
        if not part.endswith(".slice"):
            return None
    return None
