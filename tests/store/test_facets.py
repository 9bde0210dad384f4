"""GET /api/logs/facets over a real store: the same numbers as counting in Python, terms that select, limits."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from helmd.model.logs.entry import HELM, LogRow
from helmd.model.logs.filter import log_filter_of
from helmd.model.logs.matching import matches
from helmd.store.logs import facets
from helmd.store.logs.entries import StoredEntry
from helmd.store.logs.gaps import gaps_between
from helmd.store.session import Connection
from tests.store.log_server import NOW, Served, rows
from tests.store.stored import BASE, CLASSES, append, everything
from tests.store.test_query_language import varied

FIELDS = ("service", "level", "source", "stream", "host", "user", "context.status", "context.http.method", "context")
COLUMNS = {
    "service": "service_name",
    "level": "level",
    "source": "source",
    "stream": "stream",
    "host": "hostname",
    "user": "user_id",
}


def values_of(row: LogRow, field: str) -> list[str | None]:
    """Return what the entry counts for; scalars of the context as PostgreSQL writes them."""
    if field in COLUMNS:
        return [getattr(row, COLUMNS[field])]
    context = dict(row.context or {})
    if field == "context":
        return list(context)
    value: Any = context
    for key in field.split(".")[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return [] if value is None else [str(value)]


def counted(stored: Sequence[StoredEntry], query: str, field: str) -> dict[str | None, int]:
    wanted = log_filter_of({"query": query}).without(COLUMNS.get(field, field))
    chosen = [each.row for each in stored if matches(wanted, each.row, each.id)]
    return Counter(value for row in chosen for value in values_of(row, field))


async def test_counts_follow_the_other_conditions(served: Served, connection: Any) -> None:
    await append(connection, varied(700))
    stored = await everything(connection)
    for query in (
        "",
        "service:core level>=warning",
        "-service:core",
        "error -stream:stderr",
        "user:u3",
        "context.status:404 host:web1",
        "(service:core OR level:error)",
        "time>=2026-03-11T07:30:10Z time<2026-03-12T03:00:20Z",
    ):
        code, body = await served.get("/api/logs/facets", query=query, field=",".join(FIELDS), limit="50")
        assert code == 200, body
        for facet in body["facets"]:
            given = {each["value"]: each["count"] for each in facet["values"]}
            assert given == counted(stored, query, facet["field"]), (query, facet["field"])
            assert not facet["more"] and "counted_back_to" not in facet
            assert list(given.values()) == sorted(given.values(), reverse=True)


async def test_terms_select_what_was_counted(served: Served, connection: Any) -> None:
    await append(connection, varied(300))
    odd = rows(1)[0]._replace(user_id='a "b" \\c:*', hostname="-x", context={"a key": "v w", "k": "-"})
    await append(connection, [odd])
    asked = 'service,stream,user,host,context.http.path,context."a key",context.k'
    body = (await served.get("/api/logs/facets", field=asked, limit="30"))[1]
    assert [facet["field"] for facet in body["facets"]] == asked.split(",")
    for facet in body["facets"]:
        for each in facet["values"]:
            page = (await served.get("/api/logs", query=each["term"], limit="1"))[1]
            assert page["total"] == each["count"], each
    keys = (await served.get("/api/logs/facets", field="context"))[1]["facets"][0]["values"]
    assert 'context."a key":*' in [each["term"] for each in keys]
    for each in keys:
        # Null is a value whose key is there.
        assert (await served.get("/api/logs", query=each["term"], limit="1"))[1]["total"] <= each["count"]


async def test_a_large_day_is_sampled_and_that_is_said(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facets, "_READ_ENTRIES", 500)
    monkeypatch.setattr(facets, "_SAMPLE", 200)
    await served.append([*rows(700), *rows(10, "codex", "ERROR")])
    yesterday = [row._replace(timestamp=row.timestamp - timedelta(days=1)) for row in rows(50)]
    await served.append(yesterday)
    body = (await served.get("/api/logs/facets", field="service,host,stream", query="-user:x"))[1]
    service, host, _ = body["facets"]
    assert sum(each["count"] for each in service["values"]) == 200
    assert host["counted_back_to"] == service["counted_back_to"] == (NOW + timedelta(milliseconds=500)).isoformat()
    # The rollups have these whatever there is.
    exact = (await served.get("/api/logs/facets", field="service,level"))[1]["facets"]
    assert [(each["value"], each["count"]) for each in exact[0]["values"]] == [("core", 750), ("codex", 10)]
    assert "counted_back_to" not in exact[0]
    newer = await served.get(
        "/api/logs/facets", field="host", start_time=(NOW + timedelta(milliseconds=400)).isoformat()
    )
    assert newer[1]["facets"][0]["values"] == [{"value": None, "count": 300, "term": "-has:host"}]


async def test_a_day_that_takes_too_long_is_sampled(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.operations.logs.reader.SEARCH_SECONDS", 0.0)
    await served.append(rows(20))
    body = (await served.get("/api/logs/facets", field="host"))[1]
    assert body["facets"][0]["counted_back_to"] == NOW.isoformat()
    assert body["facets"][0]["values"][0]["count"] == 20


async def test_who_may_ask_and_what_is_refused(served: Served) -> None:
    await served.append([*rows(2, "codex"), *rows(3)])
    code, body = await served.get("/api/logs/facets", "billing", query="service:core")
    assert code == 200
    assert [each["value"] for each in body["facets"][0]["values"]] == ["codex"]
    assert body["facets"][1]["values"] == []
    assert (await served.get("/api/logs/facets", "client"))[0] == 403
    assert (await served.get("/api/logs/facets", None))[0] == 401
    for field in ("message", "id", "x", "context.", "context..a", 'context.""', ",", ",".join("abcdefghijklm")):
        code, body = await served.get("/api/logs/facets", field=field)
        assert (code, body["code"], body["error"][:6]) == (400, "usage", "field:"), field
    values = (await served.get("/api/logs/facets", field="service", limit="1"))[1]["facets"][0]
    assert values["more"] and len(values["values"]) == 1


async def test_gaps_are_beside_a_histogram(served: Served) -> None:
    since, until = (NOW - timedelta(minutes=5)).isoformat(), (NOW - timedelta(minutes=3)).isoformat()
    context = {"gap": "lost", "since": since, "until": until, "at_most": 12}
    gap = LogRow(NOW - timedelta(minutes=3), "helm", "WARNING", "Lines may be missing", context, source=HELM)
    await served.append([*rows(1), gap, gap._replace(timestamp=NOW - timedelta(days=3))])

    async def gaps(role: str, minutes: int) -> Any:
        begin = (NOW - timedelta(minutes=minutes)).isoformat()
        asked = {"start_time": begin, "end_time": NOW.isoformat(), "query": "service:core"}
        return (await served.get("/api/logs/histogram", role, **asked))[1]["gaps"]

    said = {"since": since, "until": until, "why": "lost", "at_most": 12}
    assert await gaps("admin", 10) == await gaps("admin", 4) == [said]
    assert await gaps("admin", 2) == await gaps("billing", 10) == []


async def test_a_gap_is_found_though_later_days_have_warnings_and_partitions_of_all_classes(
    connection: Connection,
) -> None:
    day = timedelta(days=1)
    context = {"gap": "lost", "since": (BASE - day).isoformat(), "until": BASE.isoformat(), "at_most": 12}
    later = [BASE + n * day for n in range(16)]
    found = [LogRow(time, service, "WARNING", "text") for time in later for service in ("helm", *CLASSES)]
    await append(connection, [LogRow(BASE, "helm", "WARNING", "Lines may be missing", context, source=HELM), *found])
    assert [gap.at_most for gap in await gaps_between(connection, BASE - day, later[-1], 10.0)] == [12]
