"""Output of figures: one line each, with a reference for comparison."""

import math
import statistics
import sys
from collections.abc import Sequence


class MeasurementError(Exception):
    """A figure could not be measured; the text gives the reason."""


def percentile(figures: Sequence[float], part: float) -> float:
    """Return the percentile PART (0 to 1) by the nearest-rank method."""
    return sorted(figures)[max(0, math.ceil(part * len(figures)) - 1)]


def show(what: str, figures: Sequence[float], form: str = "{:,.0f} rows/s", *beside: str) -> None:
    """Print a line: the median of the runs, their range if there are several, and references."""
    if not figures:
        say(f"{what:<58} {'nothing measured':>16}")
        return
    line = f"{what:<58} {form.format(statistics.median(figures)):>16}"
    if len(figures) > 1:
        line += f"  [{form.format(min(figures))} to {form.format(max(figures))}]"
    say(f"{line}   {'; '.join(beside)}".rstrip())


def show_times(what: str, seconds: Sequence[float], *beside: str) -> None:
    """Print a line: median and 99th percentile in milliseconds, and references."""
    if not seconds:
        say(f"{what:<58} {'nothing measured':>16}")
        return
    p50, p99 = 1000 * statistics.median(seconds), 1000 * percentile(seconds, 0.99)
    say(f"{what:<58} p50 {p50:9.1f} ms, p99 {p99:9.1f} ms of {len(seconds)}   {'; '.join(beside)}".rstrip())


def ratio(figures: Sequence[float], name: str, theirs: Sequence[float], aim: str = "") -> str:
    """``3.10 x rsyslog (23,500; aim >= 3)``"""
    if not figures or not theirs:
        return f"no comparison with {name}"
    other = statistics.median(theirs)
    shown = f"{other:,.0f}" if other >= 100 else f"{other:.3g}"
    return f"{statistics.median(figures) / other:.2f} x {name} ({shown}{f'; aim {aim}' if aim else ''})"


def say(line: str) -> None:
    print(line, flush=True)


def note(line: str) -> None:
    """Print progress to stderr."""
    print(f"bench: {line}", file=sys.stderr, flush=True)
