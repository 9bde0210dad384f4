"""How long the tests of what is never lost take: minutes in full (`scripts/campaign`), seconds in `scripts/test`."""

import os
from typing import TypeVar

FULL = os.environ.get("HIVEMATRIX_CAMPAIGN") == "full"

T = TypeVar("T", int, float)


def scaled(full: T, short: T) -> T:
    """FULL in a campaign, else SHORT."""
    return full if FULL else short
