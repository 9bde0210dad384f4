"""Catch-up: a backlog in the journal, printed while helmd-journal is down, and how fast it gets into the store."""

import time
from datetime import UTC, datetime, timedelta

from logs_figures import note, ratio, show
from logs_journalctl import filters
from logs_peers import copy_rate, rsyslog_rate, rsyslogd
from logs_tools import Printing, Sizes, all_stored, empty_store, resident_mb, store, units

_LONGEST = 600.0


def catch_up(sizes: Sizes) -> None:
    rates, journald, peaks, copied, rsyslog = [], [], [], [], []
    for number in range(sizes.runs):
        last = number == sizes.runs - 1
        empty_store(sizes)
        note(f"catch-up, run {number + 1}: printing {sizes.backlog:,} lines")
        printing = Printing("flood", lines=sizes.backlog)
        try:
            printed = printing.report()
            since = datetime.fromtimestamp(printed["began"], UTC) - timedelta(seconds=1)
            journald.append(sizes.backlog / (printed["ended"] - printed["began"]))
            time.sleep(1)
            units("start", "helmd")
            with store() as connection:
                began = time.monotonic()
                units("start", "helmd-journal")
                ended, stored = all_stored(connection, [printing.name], sizes.backlog, _LONGEST)
                peaks.append(resident_mb("helmd-journal", "VmHWM"))
            rates.append(stored / (ended - began))
            # Its upkeep would take its share from the peers.
            units("stop", "helmd")
            note(f"catch-up, run {number + 1}: {rates[-1]:,.0f} rows/s; the peers")
            copied.append(copy_rate(printing.name))
            if (rate := rsyslog_rate(printing.unit, min(sizes.rsyslog_lines, sizes.backlog))) is not None:
                rsyslog.append(rate)
        finally:
            printing.stop()
            units("start", "helmd", "helmd-journal")
        if last:
            until = datetime.fromtimestamp(printed["ended"], UTC) + timedelta(seconds=1)
    beside = [ratio(rates, "\\copy", copied, ">= 0.5")]
    if rsyslog:
        beside.insert(0, ratio(rates, "rsyslog imjournal-ompgsql", rsyslog, ">= 3"))
    elif rsyslogd() is None:
        beside.insert(0, "rsyslog is not installed here")
    show(f"catch-up of {sizes.backlog:,} JSON lines", rates, "{:,.0f} rows/s", *beside)
    show("    journald took them at", journald, "{:,.0f} lines/s")
    show("    \\copy of the same rows, with the same indexes", copied)
    if rsyslog:
        show("    rsyslog, no parsing and one index", rsyslog)
    show("    helmd-journal's memory at its most (VmHWM)", peaks, "{:,.0f} MB", "bound 200 MB")
    filters(sizes, printing.name, since, until)
