"""Who is at the other end of a TCP connection: a unit of this host, another host, or nobody knows."""

from dataclasses import dataclass
from enum import StrEnum


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
