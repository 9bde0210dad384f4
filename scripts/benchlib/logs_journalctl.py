"""Five filters by journalctl, helmctl logs and the API, on the lines of the last catch-up run."""

from datetime import datetime
from statistics import median
from time import perf_counter
from typing import Any
from urllib.parse import urlencode

import psycopg
from logs_figures import MeasurementError, note, say
from logs_lines import RARE_WORD, number_of, trace_id, user_id
from logs_tools import Helmd, Sizes, figure, store, timed, value, wait_for

_INDEX_TIMEOUT = 90.0
_TIMEOUT = 180.0


def filters(sizes: Sizes, name: str, since: datetime, until: datetime) -> None:
    """Print how long each takes to show the newest 100 matches of service NAME between SINCE and UNTIL."""
    with store() as connection:
        if sizes.backlog > 100_000:
            note("waiting for the text index of the current day")
            if not wait_for(lambda: _unindexed(connection, name) < 100_000, _INDEX_TIMEOUT, 0.5):
                say(f"WRONG: {_unindexed(connection, name):,} lines have no text index after {_INDEX_TIMEOUT:g} s")
        message = value(
            connection,
            "SELECT message FROM log_entries WHERE service_name = %s AND trace_id IS NOT NULL"
            " AND user_id IS NOT NULL ORDER BY timestamp, id OFFSET %s LIMIT 1",
            name,
            sizes.backlog // 4,
        )
    if message is None:
        raise MeasurementError(f"the store has no line of {name} with a trace and a user to look for")
    number = number_of(message)
    trace, user = trace_id(name, number), user_id(number)
    third = (until - since) / 3
    start, end = since + third, until - third
    plain = {"service": name, "limit": "100"}
    kinds: list[tuple[str, dict[str, str], list[str] | None, list[str]]] = [
        (
            "service+level+time",
            {"level": "ERROR", "start_time": start.isoformat(), "end_time": end.isoformat()},
            ["-p", "error..error", "-S", start.isoformat(), "-U", end.isoformat()],
            ["-g", '"level": "ERROR"', "-S", _local(start), "-U", _local(end)],
        ),
        ("trace", {"trace_id": trace or ""}, ["--trace", trace or ""], ["-g", f'"correlation_id": "{trace}"']),
        ("user", {"user_id": user or ""}, None, ["-g", f'"user_id": "{user}"']),
        ("rare word", {"q": RARE_WORD}, ["-g", RARE_WORD], ["-g", RARE_WORD]),
        (
            "regex with a literal part",
            {"q": "quick.*ver [0-9]+ at", "mode": "regex"},
            ["-g", "quick.*ver [0-9]+ at"],
            ["-g", "quick.*ver [0-9]+ at"],
        ),
    ]
    helmd = Helmd()
    say(f"the newest 100 of {sizes.backlog:,} lines by the same filters (median of {max(1, sizes.runs)}):")
    for what, parameters, words, theirs in kinds:
        with figure(what):
            path = f"/api/logs?{urlencode({**plain, **parameters})}"
            api = [_seconds(helmd, path) for _ in range(10 * sizes.runs)]
            found = len(helmd.get(path)["logs"])
            if not found:
                say(f"WRONG: {what}: the API finds no line")
            line = f"    {what:<54} {1000 * median(api):9.1f} ms by the API ({found} lines)"
            if words is not None:
                took = _times(sizes, "helmctl", "logs", name, "-r", "-n", "100", "--no-pager", *words)
                line += f", {1000 * median(took):.0f} ms by helmctl logs" if took else ""
            newest = ("-u", f"hivematrix-{name}", "-o", "cat", "-r", "-n", "100")
            if took := _times(sizes, "journalctl", "--user", "-q", *newest, *theirs):
                line += f"   {median(took) / median(api):,.1f} x as fast as journalctl ({1000 * median(took):,.0f} ms)"
            say(line)
    helmd.close()


def _seconds(helmd: Helmd, path: str) -> float:
    began = perf_counter()
    helmd.get(path)
    return perf_counter() - began


def _times(sizes: Sizes, *words: str) -> list[float]:
    """Return the durations of a command's runs in seconds; empty, with a message, if one times out."""
    took = []
    for _ in range(sizes.runs):
        if (seconds := timed(*words, within=_TIMEOUT)) is None:
            say(f"WRONG: {' '.join(words)}: not done within {_TIMEOUT:g} s")
            return []
        took.append(seconds)
    return took


def _local(timestamp: datetime) -> str:
    """Format a time for systemd.time(7)."""
    return timestamp.strftime("%Y-%m-%d %H:%M:%S UTC")


def _unindexed(connection: psycopg.Connection[Any], name: str) -> int:
    """Return the number of entries of NAME that the current day's text indexes do not cover yet."""
    return int(
        value(connection, "SELECT count(*) FROM log_entries WHERE service_name = %s AND id >= (SELECT max(text_bounds["
              "array_upper(text_bounds, 1)]) FROM log_partitions WHERE NOT sealed)", name)
    )  # fmt: skip
