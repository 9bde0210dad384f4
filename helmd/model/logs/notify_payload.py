"""What writers of the log store tell followers after each commit by NOTIFY: which rows are new, and where."""

from dataclasses import dataclass

_LIMIT = 7_000
"""Bytes of a payload; PostgreSQL takes fewer than 8,000."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Rows up to and with ``last_id`` are visible now. ``leaves`` are the partitions they went to; empty for any."""

    last_id: int
    leaves: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = " ".join((str(self.last_id), *self.leaves))
        return text if len(text) <= _LIMIT else str(self.last_id)

    @classmethod
    def parse(cls, payload: str) -> "Announcement | None":
        """What a payload says; None for one that Helm did not send."""
        number, *leaves = payload.split(" ")
        if not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return cls(int(number), tuple(leaves))
