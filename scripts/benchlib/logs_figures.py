"""How the bench shows its figures: one line each, with what to hold it against."""

import math
import statistics
import sys
from collections.abc import Sequence


class GivenUp(Exception):  # noqa: N818 - it is no fault of the bench
    """A figure can't be had; the text says what was missing."""


def percentile(figures: Sequence[float], part: float) -> float:
    """The least figure that PART of the figures do not exceed; 0.99 of fewer than 100 is the greatest."""
    return sorted(figures)[max(0, math.ceil(part * len(figures)) - 1)]


def show(what: str, figures: Sequence[float], form: str = "{:,.0f} rows/s", *beside: str) -> None:
    """A line: the median of the runs, their range where there are several, and what to hold it against."""
    if not figures:
        say(f"{what:<58} {'nothing measured':>16}")
        return
    line = f"{what:<58} {form.format(statistics.median(figures)):>16}"
    if len(figures) > 1:
        line += f"  [{form.format(min(figures))} to {form.format(max(figures))}]"
    say(f"{line}   {'; '.join(beside)}".rstrip())


def show_times(what: str, seconds: Sequence[float], *beside: str) -> None:
    """A line: median and 99th percentile in milliseconds, and what to hold them against."""
    if not seconds:
        say(f"{what:<58} {'nothing measured':>16}")
        return
    p50, p99 = 1000 * statistics.median(seconds), 1000 * percentile(seconds, 0.99)
    say(f"{what:<58} p50 {p50:9.1f} ms, p99 {p99:9.1f} ms of {len(seconds)}   {'; '.join(beside)}".rstrip())


def ratio(figures: Sequence[float], name: str, theirs: Sequence[float], aim: str = "") -> str:
    """``3.10 x rsyslog (23,500; aim >= 3)``"""
    if not figures or not theirs:
        return f"nothing to hold against {name}"
    other = statistics.median(theirs)
    notified = f"{other:,.0f}" if other >= 100 else f"{other:.3g}"
    return f"{statistics.median(figures) / other:.2f} x {name} ({notified}{f'; aim {aim}' if aim else ''})"


def say(line: str) -> None:
    print(line, flush=True)


def note(line: str) -> None:
    """What is being done, beside the figures."""
    print(f"bench: {line}", file=sys.stderr, flush=True)
