"""How long the tests of what is never lost take: minutes in full (`scripts/campaign`), seconds in `scripts/test`."""

import os
from typing import TypeVar

FULL = os.environ.get("HIVEMATRIX_CAMPAIGN") == "full"

TIMES = float(os.environ.get("HIVEMATRIX_CAMPAIGN_TIMES", "1"))
"""How many times as long as usual what lasts takes in a campaign (`scripts/campaign --times`)."""

T = TypeVar("T", int, float)


def scaled(full: T, short: T) -> T:
    """Return FULL in a campaign, else SHORT."""
    return full if FULL else short


def lasting(full: float, short: float) -> float:
    """Return seconds that something under load or watched is to last: FULL times `TIMES` in a campaign, else SHORT."""
    return full * TIMES if FULL else short
