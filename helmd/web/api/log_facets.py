"""Facets of log entries: values of fields, and patterns of messages."""

from typing import cast

from aiohttp import web

from helmd.model.api.log_facets import (
    DEFAULT_PATTERNS,
    DEFAULT_VALUES,
    MOST_FACETS,
    MOST_PATTERNS,
    MOST_VALUES,
    FacetsReply,
    FacetValue,
    LogFacet,
    LogPattern,
    PatternsReply,
)
from helmd.model.api.logs import LevelName
from helmd.model.errors import UsageError
from helmd.model.logs.filter import log_filter_of
from helmd.model.logs.patterns import pattern_term, shown_pattern
from helmd.model.logs.query_language.fields import CONTEXT_FIELD
from helmd.model.logs.query_language.parse import facet_subject
from helmd.model.logs.query_language.write import written_key, written_term
from helmd.operations.logs.reader import LogReader
from helmd.web.api.log_query import confined, filter_of, number, parameters
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.problems import json_response

_FIELDS = "service,level,source,stream"


class LogFacets:
    """The handlers."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    async def facets(self, request: web.Request) -> web.Response:
        """GET /api/logs/facets"""
        given = parameters(request)
        wanted = log_filter_of(given)
        most = min(number(given, "limit", DEFAULT_VALUES, least=1), MOST_VALUES)
        names = list(dict.fromkeys(name.strip() for name in (given.get("field") or _FIELDS).split(",") if name.strip()))
        if not 1 <= len(names) <= MOST_FACETS:
            raise UsageError(f"field: 1 to {MOST_FACETS} are allowed, not {len(names)}")
        subjects = {name: facet_subject(name) for name in names}
        # Restricted last, so that the condition on services is dropped, but not the caller's restriction.
        filters = {subject: confined(request, wanted.without(subject)) for subject in subjects.values()}
        found = await run_while_connected(request, self._reader.facets(filters, most))
        return json_response(
            FacetsReply(
                tuple(
                    LogFacet(
                        name,
                        tuple(FacetValue(value, count, _term(name, subject, value)) for value, count in facet.counts),
                        facet.more,
                        facet.counted_back_to,
                    )
                    for name, subject in subjects.items()
                    for facet in [found[subject]]
                )
            )
        )

    async def patterns(self, request: web.Request) -> web.Response:
        """GET /api/logs/patterns"""
        given = parameters(request)
        most = min(number(given, "limit", DEFAULT_PATTERNS, least=1), MOST_PATTERNS)
        found = await run_while_connected(request, self._reader.patterns(filter_of(request, given), most))
        shown = tuple(
            LogPattern(
                pattern=shown_pattern(each.pattern),
                service_name=each.service,
                level=cast(LevelName, each.level),
                count=each.entries,
                first=each.first,
                last=each.last,
                example_id=each.example,
                example=each.message,
                term=pattern_term(each.pattern),
            )
            for each in found.patterns
        )
        return json_response(PatternsReply(shown, found.more, found.counted_back_to))


def _term(name: str, subject: str, value: str | None) -> str:
    if subject == CONTEXT_FIELD:
        return f"{written_key(value or '')}:*"
    return written_term(name if subject.startswith(CONTEXT_FIELD) else subject, value)
