"""Who is at the other end of a TCP connection: a unit of this host, another host, or nobody knows."""

from dataclasses import dataclass
from enum import StrEnum

_UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")
"""Types of units that have control groups of their own, besides slices (systemd.unit(5))."""


class Place(StrEnum):
    """Where the other end is."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"
    """It has an address of this host, but the process can't be determined: it has ended, or is in another namespace."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection."""

    place: Place
    address: str
    unit: str = ""
    """The unit that the process belongs to; empty unless HERE."""
    owned: bool = False
    """Whether that is a unit of the user manager that the suite belongs to."""

    def __str__(self) -> str:
        return f"{self.unit} ({self.address})" if self.unit else self.address


@dataclass(frozen=True, slots=True)
class GroupUnit:
    """The unit of a control group: of the user manager of UID, or with None of the system manager."""

    unit: str
    manager: int | None


def unit_of_group(path: str) -> GroupUnit | None:
    """The unit that the control group at PATH belongs to, as systemd has it; None if it belongs to none.

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
