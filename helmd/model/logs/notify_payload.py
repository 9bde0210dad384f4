"""The payload of NOTIFY that writers of the log store send with each commit: which rows are new."""

from dataclasses import dataclass

_LIMIT = 7_000
"""Maximum size of a payload in bytes; PostgreSQL's limit is 7,999."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Rows up to and including ``last_id`` are visible. ``leaves`` are the partitions written to; empty if unknown."""

    last_id: int
    leaves: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = " ".join((str(self.last_id), *self.leaves))
        return text if len(text) <= _LIMIT else str(self.last_id)

    @classmethod
    def parse(cls, payload: str) -> "Announcement | None":
        """Parse a payload. Returns None if it was not sent by Helm."""
        number, *leaves = payload.split(" ")
        if not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return cls(int(number), tuple(leaves))
