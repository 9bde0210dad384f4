"""Queries of a store with many rows over many days, some of them today: by the API, and by the search alone."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from time import perf_counter
from typing import Any, TypeVar
from urllib.parse import urlencode

from logs_figures import MeasurementError, percentile, say, show_times
from logs_rows import OWN_DATABASE, SERVICES, drop_own_database, make_rows, own_database, sealed_until, show_sizes
from logs_tools import HELM_UNITS, Helmd, Sizes, conninfo, empty_store, figure, store, units

from helmd.model.logs.filter import PageCursor, log_filter_of
from helmd.store.logs.search import find
from helmd.store.session import connect

_LIMIT = 100
_SLOW_SAMPLES = 5
_TIMEOUT = 120.0
"""Maximum seconds for all samples of a query; after that the samples so far are used."""
_NUMBERS = random.Random(4)  # noqa: S311 - which rows are queried

_T = TypeVar("_T")
Parameters = Callable[[int], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Query:
    """``parameters`` returns those of the nth sample; for ``slow`` queries only a few samples are taken."""

    what: str
    parameters: Parameters
    aim: str
    slow: bool = False


def queries(sizes: Sizes) -> None:
    database = OWN_DATABASE if sizes.keep else "helm"
    if sizes.keep:
        own_database()
    else:
        empty_store(sizes)
    try:
        make_rows(sizes, database)
        if not sizes.keep:
            units("start", *HELM_UNITS)
        say(f"{sizes.rows:,} rows over {sizes.days} days, {sizes.today:,} of them today; the first {_LIMIT} matches:")
        for query in _queries(sizes, database):
            with figure(query.what):
                _measure(sizes, database, query)
        with figure("page by cursor"):
            _page_by_cursor(sizes, database)
        if not sizes.keep:
            with figure("histogram"):
                _histogram(sizes)
        show_sizes(database)
    finally:
        if sizes.keep:
            drop_own_database()


def _queries(sizes: Sizes, database: str) -> list[Query]:
    with store(database) as connection:
        traces = _traces(connection, sizes.samples)
        sealed = sealed_until(connection)
    now = datetime.now(UTC)
    day = timedelta(days=1)
    to_seal = {"end_time": sealed.isoformat()}

    def of_a_day(number: int) -> dict[str, str]:
        end = now - (number % (sizes.days - 2)) * day
        return {
            "service": SERVICES[number % len(SERVICES)],
            "level": "ERROR",
            "start_time": (end - 2 * day).isoformat(),
            "end_time": end.isoformat(),
        }

    found = [
        Query("service+level+time", of_a_day, "aim p99 <= 20 ms"),
        Query("trace", lambda number: {"trace_id": traces[number % len(traces)]}, "aim p99 <= 20 ms"),
        Query("user", lambda number: {"user_id": f"user{number % 200}@example.com"}, "aim p99 <= 20 ms"),
    ]
    for kind, word in (("rare", "quicksilver"), ("common", "ticket"), ("absent", "zzzyqx{}")):
        sealed_days = lambda number, word=word: {"q": word.format(number)} | to_seal  # noqa: E731
        whole = lambda number, word=word: {"q": word.format(number)}  # noqa: E731
        found.append(Query(f"{kind} word, sealed days", sealed_days, "aim <= 20 ms"))
        found.append(Query(f"{kind} word, with today", whole, "aim <= 200 ms"))
    literal = {"q": "quick.*ver$", "mode": "regex"}
    without = {"q": "[0-9]{9}$", "mode": "regex"}
    found.append(Query("regex with a literal part", lambda _: literal, "aim <= 200 ms"))
    found.append(Query("regex without one", lambda _: without, "stops at 1 s", slow=True))
    return found


def _traces(connection: object, count: int) -> list[str]:
    first, last = connection.execute("SELECT min(id), max(id) FROM log_entries").fetchone()  # type: ignore[attr-defined]
    ids = [_NUMBERS.randint(first, last) for _ in range(4 * count)]
    query = "SELECT trace_id FROM log_entries WHERE id = ANY(%s) AND trace_id IS NOT NULL LIMIT %s"
    return [trace for (trace,) in connection.execute(query, (ids, count))]  # type: ignore[attr-defined]


def _measure(sizes: Sizes, database: str, query: Query) -> None:
    times = min(sizes.samples, _SLOW_SAMPLES) if query.slow else sizes.samples
    alone, searched = _limited(query.what, _by_search(database, query, times))
    search_only = f"the search alone p50 {1000 * median(alone):.1f}, p99 {1000 * percentile(alone, 0.99):.1f} ms"
    if sizes.keep:
        show_times(f"    {query.what}", alone, query.aim)
        return
    helmd = Helmd()
    took: list[float] = []
    back = searched
    end = perf_counter() + _TIMEOUT
    for number in range(-1, times):
        if took and perf_counter() > end:
            say(f"WRONG: {query.what}: the API was queried {len(took)} of {times} times within {_TIMEOUT:g} s")
            break
        path = f"/api/logs?{urlencode({'limit': str(_LIMIT), **query.parameters(number % times)})}"
        began = perf_counter()
        answer = helmd.get(path)
        # The first one reads from disk and is not counted.
        if number >= 0:
            took.append(perf_counter() - began)
            back = answer.get("searched_to") or ""
    helmd.close()
    beside = [query.aim, search_only]
    if back:
        beside.append(f"searched back to {back}")
    show_times(f"    {query.what}", took, *beside)


def _limited(what: str, work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of WORK. Raises MeasurementError if it does not end."""

    async def limited() -> _T:
        async with asyncio.timeout(3 * _TIMEOUT):
            return await work

    try:
        return asyncio.run(limited())
    except TimeoutError:
        raise MeasurementError(f"{what}: the search alone did not end within {3 * _TIMEOUT:g} s") from None


async def _by_search(database: str, query: Query, times: int) -> tuple[list[float], str]:
    """Return the durations of searches without the API, and the last one's searched_to."""
    connection = await connect(conninfo(database, "helm"), "bench")
    took: list[float] = []
    back = None
    end = perf_counter() + _TIMEOUT
    try:
        for number in range(-1, times):
            if took and perf_counter() > end:
                say(f"WRONG: {query.what}: searched {len(took)} of {times} times within {_TIMEOUT:g} s")
                break
            wanted = log_filter_of(query.parameters(number % times))
            began = perf_counter()
            back = (await find(connection, wanted, _LIMIT)).searched_to
            if number >= 0:
                took.append(perf_counter() - began)
    finally:
        await connection.close()
    return took, back.isoformat() if back else ""


def _page_by_cursor(sizes: Sizes, database: str) -> None:
    """Go to the last page but one, then measure the last one repeatedly."""
    what = f"    page {sizes.pages:,} by cursor"
    alone, walked = _limited(what.strip(), _walk(sizes, database))
    search_only = f"the search alone p50 {1000 * median(alone):.1f}, p99 {1000 * percentile(alone, 0.99):.1f} ms"
    if sizes.keep:
        show_times(what, alone, "aim p99 <= 20 ms")
        return
    helmd = Helmd()
    took = []
    for number in range(-1, sizes.samples):
        began = perf_counter()
        helmd.get(f"/api/logs?limit={_LIMIT}&cursor={walked}")
        if number >= 0:
            took.append(perf_counter() - began)
    helmd.close()
    show_times(what, took, "aim p99 <= 20 ms", search_only)


async def _walk(sizes: Sizes, database: str) -> tuple[list[float], PageCursor | None]:
    connection = await connect(conninfo(database, "helm"), "bench")
    position: PageCursor | None = None
    took = []
    wanted = log_filter_of({})
    try:
        for _ in range(sizes.pages - 1):
            position = (await find(connection, wanted, _LIMIT, position)).next
        for _ in range(sizes.samples):
            began = perf_counter()
            await find(connection, wanted, _LIMIT, position)
            took.append(perf_counter() - began)
    finally:
        await connection.close()
    return took, position


def _histogram(sizes: Sizes) -> None:
    helmd = Helmd()
    now = datetime.now(UTC)
    month = {"start_time": (now - timedelta(days=30)).isoformat(), "end_time": now.isoformat()}
    for what, more in (("all", {}), ("one service", {"service": "core"})):
        took = []
        for number in range(-1, sizes.samples):
            began = perf_counter()
            helmd.get(f"/api/logs/histogram?{urlencode({**month, **more})}")
            if number >= 0:
                took.append(perf_counter() - began)
        show_times(f"    histogram of a month, {what}", took, "aim <= 50 ms")
    helmd.close()
