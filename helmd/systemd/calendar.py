"""Calendar event expressions (systemd.time(7)), as far as systemd-analyze(1) has to be asked."""

import os
import re
import subprocess
from datetime import datetime
from functools import lru_cache

_SECONDS = 10.0


def calendar_fault(expression: str) -> str:
    """Return why EXPRESSION can't be a ``OnCalendar=``, as a sentence; empty if it can.

    Asks systemd, which takes 10 ms.
    """
    try:
        return _complaint(expression)
    except subprocess.TimeoutExpired:
        return f"could not be checked: systemd-analyze calendar took over {_SECONDS:g} s"


@lru_cache(maxsize=256)
def _complaint(expression: str) -> str:
    """Return what systemd has against EXPRESSION. Raises TimeoutExpired, which is not remembered."""
    done = subprocess.run(
        ["systemd-analyze", "calendar", "--", expression],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines()
    return f"{said[0] if said else 'systemd refuses it'}; see systemd.time(7), CALENDAR EVENTS"


def calendar_interval(expression: str) -> float | None:
    """Return seconds between the next two times that EXPRESSION means, or None if systemd can't say."""
    try:
        done = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=2", "--", expression],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return None
    times = re.findall(r"(?:Next elapse|Iter\. #2|Iteration #2): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", done.stdout)
    if len(times) != 2:
        return None
    first, second = (datetime.fromisoformat(text) for text in times)
    return (second - first).total_seconds()
