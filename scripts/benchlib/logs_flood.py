"""Floods: at the maximum rate of journald, and at a constant rate for a longer time."""

import statistics
import time
from typing import Any

import psycopg
from logs_figures import note, percentile, show
from logs_lines import printed_at
from logs_tools import (
    HELM_UNITS,
    Printer,
    Sizes,
    all_stored,
    counted,
    cpu_seconds,
    empty_store,
    figure,
    resident_mb,
    settle,
    store,
    units,
    wait_for,
)

_SAMPLE_EVERY = 0.05


def flood(sizes: Sizes) -> None:
    """Measure several services that print at the maximum rate."""
    accepted: list[float] = []
    concurrently: list[float] = []
    drained: list[float] = []
    peaks: list[float] = []
    for number in range(sizes.runs):
        with figure(f"flood, run {number + 1}"):
            _fresh(sizes)
            note(f"flood, run {number + 1}: {sizes.writers} writers for {sizes.flood_seconds:g} s")
            began = time.time()
            writers = [Printer("flood", seconds=sizes.flood_seconds) for _ in range(sizes.writers)]
            names = [writer.name for writer in writers]
            try:
                with store() as connection:
                    # Counted exactly at the end, since tens of thousands of lines are stored per second.
                    time.sleep(max(0.0, began + sizes.flood_seconds - time.time() - 0.1))
                    wait_for(writers[0].done, sizes.timeout, 0.01)
                    stored, counted_at = counted(connection, names), time.time()
                    reports = [writer.report(sizes.timeout) for writer in writers]
                    ended = max(report["ended"] for report in reports)
                    took = ended - min(report["began"] for report in reports)
                    printed = int(sum(report["printed"] for report in reports))
                    seen = all_stored(connection, names, printed, sizes.timeout)
                    if seen is not None:
                        drained.append(max(0.0, seen - time.monotonic() + time.time() - ended))
                accepted.append(printed / took)
                concurrently.append(stored / (counted_at - began))
                peaks.append(resident_mb("helmd-journal", "VmHWM"))
            finally:
                for writer in writers:
                    writer.stop()
    aim = f"aim <= {sizes.flood_seconds:g} s"
    share = (
        "" if not accepted else f"{100 * statistics.median(concurrently) / statistics.median(accepted):.0f} % of that"
    )
    show(f"a flood of {sizes.flood_seconds:g} s by {sizes.writers} writers: journald took", accepted, "{:,.0f} lines/s")
    show("    stored in that time", concurrently, "{:,.0f} rows/s", share)
    show("    until drained, after the last line was printed", drained, "{:,.1f} s", aim)
    show("    helmd-journal's memory at its most (VmHWM)", peaks, "{:,.0f} MB", "bound 200 MB")


def sustained(sizes: Sizes) -> None:
    """Measure the lag of the store at a constant rate, and the resource usage."""
    rate, seconds = sizes.sustained_rate, sizes.sustained_seconds
    middle: list[float] = []
    high: list[float] = []
    most: list[float] = []
    costs: dict[str, list[float]] = {"helmd-journal": [], "helmd-postgres": [], "helmd": [], "systemd-journald": []}
    memory: dict[str, list[float]] = {"helmd-journal": [], "helmd": []}
    for number in range(sizes.runs):
        with figure(f"sustained, run {number + 1}"):
            _fresh(sizes)
            note(f"sustained, run {number + 1}: {rate:,} lines/s for {seconds:g} s")
            before = _costs(costs)
            printer = Printer("steady", lines=round(rate * seconds), rate=rate)
            try:
                with store() as connection:
                    lags = _lags(connection, printer, seconds)
                    printed = int(printer.report(sizes.timeout)["printed"])
                    all_stored(connection, [printer.name], printed, sizes.timeout)
                after = _costs(costs)
                for unit in costs:
                    costs[unit].append(1e6 * (after[unit] - before[unit]) / printed)
                for unit in memory:
                    memory[unit].append(resident_mb(unit))
                if lags:
                    middle.append(1000 * statistics.median(lags))
                    high.append(1000 * percentile(lags, 0.99))
                    most.append(1000 * max(lags))
            finally:
                printer.stop()
    show(f"{rate:,} lines/s for {seconds:g} s: lag, median", middle, "{:,.0f} ms")
    show("    lag, 99 %", high, "{:,.0f} ms", "aim < 1,000 ms")
    show("    lag, maximum", most, "{:,.0f} ms")
    journald = costs.pop("systemd-journald")
    for unit, figures in costs.items():
        beside = ratio_to(figures, journald)
        show(f"    {unit}'s CPU seconds per million lines", figures, "{:,.1f} s", beside)
    for unit, figures in memory.items():
        show(f"    {unit}'s memory (VmRSS)", figures, "{:,.0f} MB", "bound 200 MB")


def ratio_to(figures: list[float], journald: list[float]) -> str:
    if not figures or not journald:
        return ""
    other = statistics.median(journald)
    return f"{statistics.median(figures) / other:.2f} x journald's own ({other:.1f} s)"


def _fresh(sizes: Sizes) -> None:
    """Empty the store, and start Helm with nothing left to read."""
    empty_store(sizes)
    units("start", *HELM_UNITS)
    with store() as connection:
        settle(connection, sizes.timeout)


def _costs(names: dict[str, list[float]]) -> dict[str, float]:
    return {unit: cpu_seconds(unit, of_system=unit == "systemd-journald") for unit in names}


def _lags(connection: psycopg.Connection[Any], printer: Printer, seconds: float) -> list[float]:
    """Sample the age in seconds of the newest stored line of PRINTER while it prints.

    The first second is ignored.
    """
    lags: list[float] = []
    query = (
        "SELECT message FROM log_entries WHERE service_name = %s AND source = 'journal' AND timestamp > now() - "
        "interval '10 minutes'"
        " ORDER BY timestamp DESC, id DESC LIMIT 1"
    )
    end = time.monotonic() + seconds + 30
    first = None
    while not printer.done() and time.monotonic() < end:
        found = connection.execute(query, (printer.name,), prepare=True).fetchone()
        now = time.time()
        if found is not None:
            first = first or now
            if now - first > min(1.0, seconds / 4):
                lags.append(now - printed_at(found[0]))
        time.sleep(_SAMPLE_EVERY)
    # The last sample may be from after the last line.
    return lags[:-1]
