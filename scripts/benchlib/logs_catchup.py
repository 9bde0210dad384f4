"""Catch-up: how fast a backlog in the journal, printed while helmd-journal was stopped, is stored."""

import time
from datetime import UTC, datetime

from logs_figures import note, ratio, say, show
from logs_journalctl import filters
from logs_peers import copy_rate, rsyslog_rate, rsyslogd
from logs_tools import Printer, Sizes, all_stored, empty_store, figure, resident_mb, store, units


def catch_up(sizes: Sizes) -> None:
    rates: list[float] = []
    journald: list[float] = []
    peaks: list[float] = []
    copied: list[float] = []
    rsyslog: list[float] = []
    newest: tuple[str, datetime, datetime] | None = None
    for number in range(sizes.runs):
        with figure(f"catch-up, run {number + 1}"):
            empty_store(sizes)
            # The lines of the previous run have been deleted.
            newest = None
            note(f"catch-up, run {number + 1}: printing {sizes.backlog:,} lines")
            printer = Printer("flood", lines=sizes.backlog)
            try:
                printed = printer.report(sizes.timeout)
                journald.append(sizes.backlog / (printed["ended"] - printed["began"]))
                time.sleep(1)
                units("start", "helmd")
                with store() as connection:
                    began = time.monotonic()
                    units("start", "helmd-journal")
                    ended = all_stored(connection, [printer.name], sizes.backlog, sizes.timeout)
                    peaks.append(resident_mb("helmd-journal", "VmHWM"))
                if ended is None:
                    continue
                newest = (printer.name, _at(printed["began"] - 1), _at(printed["ended"] + 1))
                rates.append(sizes.backlog / (ended - began))
                # Its maintenance would slow down the peers; a connection to its sockets would start it again.
                units("stop", "helmd.socket", "helmd-http.socket", "helmd")
                note(f"catch-up, run {number + 1}: {rates[-1]:,.0f} rows/s; the peers")
                copied.append(copy_rate(printer.name))
                lines = min(sizes.rsyslog_lines, sizes.backlog)
                if (rate := rsyslog_rate(printer.unit, lines, sizes.timeout)) is not None:
                    rsyslog.append(rate)
            finally:
                printer.stop()
                units("start", "helmd", "helmd-journal")
    beside = [ratio(rates, "\\copy", copied, ">= 0.5")]
    if rsyslogd() is None:
        beside.insert(0, "rsyslog is not installed here")
    else:
        beside.insert(0, ratio(rates, "rsyslog imjournal-ompgsql", rsyslog, ">= 3"))
    show(f"catch-up of {sizes.backlog:,} JSON lines", rates, "{:,.0f} rows/s", *beside)
    show("    journald's rate for them", journald, "{:,.0f} lines/s")
    show("    \\copy of the same rows, with the same indexes", copied)
    if rsyslogd() is not None:
        show("    rsyslog, no parsing and one index", rsyslog)
    show("    helmd-journal's peak memory (VmHWM)", peaks, "{:,.0f} MB", "bound 200 MB")
    if newest is not None:
        filters(sizes, *newest)
    else:
        say("WRONG: the filters need the lines of the last run")


def _at(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
