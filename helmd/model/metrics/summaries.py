"""Values of a metric over the last hour and the last days, of one service."""

from datetime import datetime
from typing import NamedTuple


class MinuteValues(NamedTuple):
    """Values of a metric by minute: seconds since the epoch, and the mean of that minute."""

    minutes: tuple[int, ...]
    values: tuple[float, ...]


class DayShare(NamedTuple):
    """A day of a metric between 0 and 1: its mean, its least value, and when it was last below 1."""

    mean: float
    least: float
    below: datetime | None
