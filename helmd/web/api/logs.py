"""Stored log entries: lists, single ones, counts, and exports."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal, NoReturn

from aiohttp import web

from helmd.model.api.logs import DEFAULT_LIMIT, MAX_LIMIT, HistogramBucket, HistogramReply, LogGap, LogPage
from helmd.model.api.services import DashboardReply
from helmd.model.errors import HelmError, StoreError, UsageError
from helmd.model.logs.filter import LogFilter, PageCursor, page_cursor_of
from helmd.model.logs.timestamps import timespan
from helmd.model.suite.names import RESERVED_PREFIX
from helmd.operations.logs.reader import LogReader
from helmd.operations.logs.window import LogWindow, newer_window, older_window
from helmd.web.api.log_facets import LogFacets
from helmd.web.api.log_query import filter_of, number, one_of, parameters
from helmd.web.api.log_views import LogViews
from helmd.web.api.sources import StatusSource
from helmd.web.auth.roles import Identity
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.problems import PREFIX, json_response, prefix_of

_MINUTE = timedelta(minutes=1)
STEPS = tuple(timedelta(minutes=n) for n in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080))
"""Lengths of a histogram's buckets."""
_BUCKETS, _MAX_BUCKETS = 200, 2000
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
"""Range of times, beyond which the store has no entries."""
_HISTOGRAM_SPAN = timedelta(hours=1)
_STATS_SPAN = timedelta(hours=24)
_STALLED_SECONDS = 600.0
"""Seconds after which an export is aborted if the client reads nothing, since it blocks others and dropping
partitions.
"""
_PLACES = frozenset({"cursor", "after", "before", "around", "offset", "first"})
"""Parameters for the beginning of a page."""
_CONTENT: dict[str, str] = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}

_log = logging.getLogger(__name__)


class UnknownEntryError(HelmError):
    """No such log entry, or none that the caller may see."""

    code: ClassVar[str] = "unknown_entry"


class Logs:
    """The handlers."""

    def __init__(self, reader: LogReader, monitor: StatusSource) -> None:
        self._reader = reader
        self._monitor = monitor
        self.facets = LogFacets(reader)
        self.views = LogViews(reader)

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/logs"""
        given = parameters(request)
        wanted = filter_of(request, given)
        limit = min(number(given, "limit", DEFAULT_LIMIT, least=1), MAX_LIMIT)
        offset = number(given, "offset", 0)
        ascending = one_of(given, "order", ("desc", "asc")) == "asc"
        window = await run_while_connected(request, self._window(request, given, wanted, limit, offset, ascending))
        newer = None if ascending and window.newest else window.newer
        older = None if window.oldest and not ascending else window.older
        following, previous = (cursor_text(place) for place in ((newer, older) if ascending else (older, newer)))
        opposite = "before" if ascending else "after"
        return json_response(
            LogPage(
                logs=tuple(entry.body for entry in (window.entries[::-1] if ascending else window.entries)),
                total=window.total.entries if window.total else None,
                limit=limit,
                offset=offset,
                next_cursor=following,
                prev_cursor=previous,
                total_is_estimate=True if window.total and window.total.estimate else None,
                searched_back_to=window.searched_back_to,
                searched_up_to=window.searched_up_to,
            ),
            headers=page_links(request, {"next": ("cursor", following), "prev": (opposite, previous)}),
        )

    async def _window(
        self,
        request: web.Request,
        given: dict[str, str],
        wanted: LogFilter,
        limit: int,
        offset: int,
        ascending: bool,
    ) -> LogWindow:
        places = [name for name in ("cursor", "after", "before", "around") if given.get(name)]
        places += ["offset"] if offset else []
        if len(places) > 1:
            raise UsageError(f"{places[0]}: can't be combined with {' or '.join(places[1:])}")
        counted = one_of(given, "total", ("true", "false")) == "true"
        if places == ["around"]:
            id_, services = number(given, "around", 0, least=1), request["identity"].services
            window = await self._reader.around(wanted, limit, id_, services, counted=counted)
            return window or _no_entry()
        upwards = places == ["after"] or (ascending and places != ["before"])
        behind = page_cursor_of(given[places[0]]) if places and places != ["offset"] else None
        found = await self._reader.page(wanted, limit, behind, offset, counted=counted, oldest_first=upwards)
        return newer_window(found.page, found.total) if upwards else older_window(found.page, found.total)

    async def entry(self, request: web.Request) -> web.Response:
        """GET /api/logs/{id}"""
        text = request.match_info["id"]
        # No id is that long, nor 0.
        entry = await self._reader.entry(int(text) if len(text) <= 18 else 0, request["identity"].services)
        return json_response((entry or _no_entry()).body)

    async def histogram(self, request: web.Request) -> web.Response:
        """GET /api/logs/histogram"""
        given = parameters(request)
        wanted = filter_of(request, given)
        end = min(wanted.end or datetime.now(UTC), _LATEST)
        start = max(wanted.start or max(end, _EARLIEST) - _HISTOGRAM_SPAN, _EARLIEST)
        if start >= end:
            raise UsageError("start_time: is not before end_time")
        step = _step(given.get("step", ""), end - start)
        found = await run_while_connected(request, self._reader.histogram(wanted, start, end, step))
        seen = await self._reader.gaps(start, end) if request["identity"].services is None else []
        gaps = tuple(LogGap(gap.since, gap.until, gap.why, gap.at_most) for gap in seen)
        buckets = [
            HistogramBucket(bucket.start, bucket.levels, sum(bucket.levels.values())) for bucket in found.buckets
        ]
        return json_response(HistogramReply(int(step.total_seconds()), tuple(buckets), gaps, found.counted_back_to))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """GET /api/logs/export"""
        given = parameters(request)
        wanted = filter_of(request, given)
        form: Literal["ndjson", "csv"] = "csv" if one_of(given, "format", ("ndjson", "csv")) == "csv" else "ndjson"
        oldest_first = one_of(given, "order", ("desc", "asc")) == "asc"
        response = web.StreamResponse(headers={"Content-Type": _CONTENT[form], "X-Accel-Buffering": "no"})
        name = f"helm-logs-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{form}"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        if request.method == "HEAD":
            return response
        async with self._reader.export(wanted, form, oldest_first=oldest_first) as chunks:
            # Errors before the first chunk get an error response.
            first = await run_while_connected(request, _next(chunks))
            await response.prepare(request)
            try:
                await _send(request, response, first, chunks)
            except HelmError as error:
                _log.warning("an export was aborted: %s", error.sentence)
                _abort(request)
            except TimeoutError:
                _log.info("an export was aborted: its client read nothing for %.0f s", _STALLED_SECONDS)
                _abort(request)
        return response

    async def dashboard(self, request: web.Request) -> web.Response:
        """GET /api/dashboard/status"""
        statuses = self._monitor.statuses()
        counts: dict[str, dict[str, int]] = {name: {} for name in statuses}
        wrong = None
        try:
            found = await self._reader.level_counts(datetime.now(UTC) - _STATS_SPAN)
            identity: Identity = request["identity"]
            shown = (name for name in found if identity.sees_logs_of(name) and not name.startswith(RESERVED_PREFIX))
            counts |= {name: found[name] for name in shown}
        except StoreError as error:
            wrong = error.sentence
        return json_response(DashboardReply(statuses, counts, wrong))


def _no_entry() -> NoReturn:
    raise UnknownEntryError("there is no such log entry")


def cursor_text(place: PageCursor | None) -> str | None:
    """Return the cursor as text for the API."""
    return str(place) if place is not None else None


def page_links(request: web.Request, pages: Mapping[str, tuple[str, str | None]]) -> dict[str, str]:
    """Return the header Link (RFC 8288) with the other PAGES: by relation a parameter and its value, None for no such
    page.
    """
    kept = [pair for pair in request.query.items() if pair[0] not in _PLACES]
    prefix = "" if request.path.startswith(PREFIX + "/") else prefix_of(request)
    links = [
        f'<{prefix}{request.rel_url.with_query([*kept, (name, value)])}>; rel="{relation}"'
        for relation, (name, value) in pages.items()
        if value is not None
    ]
    return {"Link": ", ".join(links)} if links else {}


def _step(text: str, span: timedelta) -> timedelta:
    """Return the requested length of a bucket, or the shortest that does not give too many. Raises UsageError."""
    if not text:
        return next((step for step in STEPS if span <= step * _BUCKETS), _longest(span))
    try:
        step = timedelta(seconds=timespan(text))
    except (ValueError, OverflowError):
        raise UsageError("step: is not a time span", hint="For example 60, 5min or 1h.") from None
    if step < _MINUTE or step % _MINUTE:
        raise UsageError("step: must be whole minutes")
    if span > step * _MAX_BUCKETS:
        raise UsageError(f"step: makes more than {_MAX_BUCKETS:,} buckets")
    return step


def _longest(span: timedelta) -> timedelta:
    """Return a length in whole weeks, for spans of many years."""
    return STEPS[-1] * -(-span // (STEPS[-1] * _BUCKETS))


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


async def _send(
    request: web.Request, response: web.StreamResponse, first: bytes | None, chunks: AsyncIterator[bytes]
) -> None:
    """Send chunks as fast as the client reads: the next one is fetched after the previous one was sent."""
    chunk = first
    while chunk is not None:
        await run_while_connected(request, _written(response, chunk))
        chunk = await run_while_connected(request, _next(chunks))


async def _written(response: web.StreamResponse, chunk: bytes) -> None:
    async with asyncio.timeout(_STALLED_SECONDS):
        await response.write(chunk)


def _abort(request: web.Request) -> None:
    """Close the connection without the last chunk, so that the client detects that the export is incomplete."""
    if request.transport is not None:
        request.transport.abort()
