"""The query language over a real store: API, helmctl and Python agree; windows go on in both directions."""

import asyncio
import random
from datetime import timedelta
from typing import Any

from helmd.cli.logs.store import StoreLines
from helmd.journal.query import Wanted
from helmd.model.logs.entry import LogRow
from helmd.model.logs.query_language.evaluate import meets
from helmd.model.logs.query_language.parse import parsed_query
from tests.store.log_server import NOW, Served, rows, streaming
from tests.store.stored import append, everything, random_rows

QUERIES = r"""
error
"error terror"
-error
error -terror 42
error OR "100%"
(error OR x) -a_b level>=warning
100%
a_b
back\slash
"*?"
naïve
service:core
service:co*
-service:core
service:core,nexus level:info
service:*e* -service:nexus
level>=warning
-level:debug
level<warning OR service:ledger
trace:t1
trace:t1 OR trace:t2
-trace:t*
has:trace -user:u1
user:u3 level>=error
user:u* stream:stderr
source:journal
source:http,helm
-source:journal
stream:stdout error
-has:stream
unit:hivematrix-core.service
unit:hivematrix-co*
-has:unit
boot:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
-boot:b*
has:boot unit:helmd.service
host:web*
pid>=50
pid<50 error
context.n>100
context.n:17
context.status>=500
context.status:"404"
context.http.method:GET -context.http.path:/api/*
context.http.path:/a*1
has:context.http
-has:context.flag
context.flag:true
context.size<=10.5
context.a.b:flat
/err.r/
/^\(error\)/
/\d{2}$/ -/x/
/\berror\b/ level>=warning
/(42|100%)( x)?$/
time>=2026-03-11T06:00:00Z time<2026-03-12
pattern:"error *"
-pattern:"* x*" service:codex
id>100 id<=200 error
""".strip().split("\n")


def varied(number: int) -> list[LogRow]:
    """Random rows with host names, process ids and contexts of all kinds of values."""
    chosen = random.Random(7)

    def context() -> dict[str, object] | None:
        given: dict[str, object] = {
            "n": chosen.randrange(300),
            "status": chosen.choice((200, 404, "404", 500.0, "503", "n/a", None)),
            "http": {
                "method": chosen.choice(("GET", "POST")),
                "path": f"/{chosen.choice('ab')}/{chosen.randrange(20)}",
            },
            "flag": chosen.choice((True, False, "true", 1)),
            "size": chosen.choice((10.5, "10.50", 10.51, "1e1", [10], {"x": 1}, "-3", "+4")),
            "a.b": "flat",
        }
        if chosen.random() < 0.2:
            given["a"] = {"b": chosen.choice(("nested", 7))}
        kept = chosen.sample(sorted(given), chosen.randrange(len(given) + 1))
        return {key: given[key] for key in kept} or None

    return [
        row._replace(
            context=context(),
            hostname=chosen.choice((None, "web1", "web2", "db")),
            process_id=chosen.choice((None, chosen.randrange(100))),
        )
        for row in random_rows(number, seed=3)
    ]


async def listed(served: Served, **given: str) -> list[int]:
    """Return all ids that the API gives, page by page."""
    found: list[int] = []
    cursor = ""
    while True:
        place = {"cursor": cursor} if cursor else {}
        code, body = await served.get("/api/logs", limit="400", **given, **place)
        assert code == 200, body
        found += [entry["id"] for entry in body["logs"]]
        if body["next_cursor"] is None:
            if not cursor:
                assert body["total"] == len(found)
            return found
        cursor = body["next_cursor"]


async def test_queries_give_the_same_in_the_api_in_helmctl_and_in_python(served: Served, connection: Any) -> None:
    await append(connection, varied(900))
    stored = await everything(connection)
    answers = set()
    for query in QUERIES:
        node = parsed_query(query)
        expected = [each.id for each in stored if each.row.duplicate_of is None and meets(node, each.row, each.id)]
        assert await listed(served, query=query) == expected, query
        assert (await listed(served, query=query, order="asc"))[::-1] == expected, query

        def helmctl(query: str = query) -> list[int | None]:
            lines = StoreLines(served.unix_socket, Wanted(query=query), None, lambda sentence: None)
            return [line.id for line in lines.open(None, True, False)]

        assert await asyncio.to_thread(helmctl) == expected, query
        answers.add(tuple(expected))
        code, body = await served.get(
            "/api/logs/histogram", query=query, start_time="2026-03-10", end_time="2026-03-15", step="1d"
        )
        # A histogram has whole steps.
        counted = sum(bucket["total"] for bucket in body["buckets"])
        assert code == 200 and (counted == len(expected) or "time" in query), query
        assert 0 < len(expected) < len(stored), query
    assert len(answers) > 0.9 * len(QUERIES)


async def test_followers_take_a_query(served: Served) -> None:
    async with (
        streaming(served, query="codex -line OR context.n>5") as plain,
        streaming(served, query="/l.ne [13]/ -context.n>5") as expression,
    ):
        some = rows(4)
        some[2] = some[2]._replace(context={"n": 6}, message="six")
        await served.append([*some, *rows(1, text="codex")])
        assert await plain.messages(2) == ["six", "codex 0"]
        assert await expression.messages(2) == ["line 1", "line 3"]


async def test_faults_in_a_query_are_said_with_their_place(served: Served) -> None:
    for path in ("/api/logs", "/api/logs/histogram", "/api/logs/export", "/api/logs/stream"):
        code, body = await served.get(path, query="a sevice:x")
        assert (code, body["code"]) == (400, "usage")
        assert body["error"] == "query: there is no field 'sevice' (at character 3)" and "service" in body["hint"]


async def test_windows_go_on_in_both_directions(served: Served, connection: Any) -> None:
    await append(connection, random_rows(600, seed=5))
    for query in ("", "level>=warning", "error", "-x", "/err/"):
        every = await listed(served, query=query)
        middle = every[len(every) // 2]
        body = (await served.get("/api/logs", query=query, around=str(middle), limit="21"))[1]
        shown = [entry["id"] for entry in body["logs"]]
        place = every.index(middle)
        assert shown == every[place - 10 : place + 11]
        above, below = body["prev_cursor"], body["next_cursor"]
        while above is not None:
            body = (await served.get("/api/logs", query=query, after=above, limit="50"))[1]
            shown = [entry["id"] for entry in body["logs"]] + shown
            above = body["prev_cursor"]
        while below is not None:
            body = (await served.get("/api/logs", query=query, before=below, limit="50"))[1]
            shown += [entry["id"] for entry in body["logs"]]
            below = body["next_cursor"]
        assert shown == every
        # The oldest first, in the middle and back.
        first = (await served.get("/api/logs", query=query, order="asc", limit="5"))[1]
        assert [entry["id"] for entry in first["logs"]] == every[:-6:-1]
        second = (await served.get("/api/logs", query=query, order="asc", after=first["next_cursor"], limit="5"))[1]
        assert [entry["id"] for entry in second["logs"]] == every[-6:-11:-1]
        again = (await served.get("/api/logs", query=query, order="asc", before=second["prev_cursor"], limit="5"))[1]
        assert again["logs"] == first["logs"]


async def test_around_an_entry_that_the_filter_does_not_take(served: Served) -> None:
    last = (await served.append([*rows(3, "codex"), *rows(5)])).last_id
    ids = list(range(last - 7, last + 1))
    stamps = [NOW + timedelta(milliseconds=n) for n in (0, 1, 2, 0, 1, 2, 3, 4)]
    code, body = await served.get("/api/logs", around=str(ids[1]), service="core", limit="4")
    assert code == 200 and body["total"] == 5
    found = [entry["id"] for entry in body["logs"]]
    assert found == [ids[5], ids[4], ids[1], ids[3]], list(zip(ids, stamps, strict=True))
    assert (await served.get("/api/logs", around=str(ids[1]), limit="1"))[1]["logs"][0]["id"] == ids[1]
    assert (await served.get("/api/logs", around=str(last + 1)))[0] == 404
    assert (await served.get("/api/logs", "billing", around=str(last)))[0] == 404
    seen = (await served.get("/api/logs", "billing", around=str(ids[1]), limit="20"))[1]["logs"]
    assert {entry["service_name"] for entry in seen} == {"codex"}
    assert (await served.get("/api/logs", "client", around=str(ids[1])))[0] == 403
    for given in ({"cursor": "1-1"}, {"after": "1-1"}, {"offset": "1"}):
        code, body = await served.get("/api/logs", around="1", **given)
        assert code == 400 and "can't be combined" in body["error"]


async def test_billing_stays_confined_by_any_query(served: Served) -> None:
    await served.append([*rows(2, "codex"), *rows(3)])
    for query in ("service:core", "service:*", "-service:codex", "line OR service:core", "id>=1"):
        body = (await served.get("/api/logs", "billing", query=query))[1]
        assert {entry["service_name"] for entry in body["logs"]} <= {"codex"}
