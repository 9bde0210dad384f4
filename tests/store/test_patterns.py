"""GET /api/logs/patterns over a real store: grouped as Python does it, and terms that hide what was counted."""

from collections import Counter
from datetime import timedelta

import pytest

from helmd.model.logs.patterns import pattern_of, shown_pattern
from helmd.store.logs import patterns
from tests.store.log_server import NOW, Served, rows
from tests.unit.test_patterns import SHOWN


async def test_messages_are_grouped_as_python_does_it(served: Served) -> None:
    odd = [rows(1)[0]._replace(message=message) for message, _ in SHOWN]
    days = [row._replace(timestamp=row.timestamp - timedelta(days=9)) for row in rows(4)]
    some = [*rows(30), *rows(20, "codex", "ERROR", "it's"), *odd, *days]
    await served.append(some)
    code, body = await served.get("/api/logs/patterns")
    assert code == 200 and not body["more"] and "counted_back_to" not in body
    found = {(each["service_name"], each["level"], each["pattern"]): each for each in body["patterns"]}
    expected = Counter((row.service_name, row.level, shown_pattern(pattern_of(row.message))) for row in some)
    assert {key: each["count"] for key, each in found.items()} == expected
    line = found["core", "INFO", "line *"]
    assert (line["count"], line["example"], line["term"]) == (34, "line 29", 'pattern:"line *"')
    assert line["first"] == (NOW - timedelta(days=9)).isoformat()
    assert line["last"] == (NOW + timedelta(milliseconds=29)).isoformat()
    for each in found.values():
        query = f"{each['term']} service:{each['service_name']} level:{each['level']}"
        assert (await served.get("/api/logs", query=query))[1]["total"] == each["count"], each
        hidden = (await served.get("/api/logs", query="-" + each["term"]))[1]["total"]
        assert hidden == len(some) - sum(other["count"] for other in found.values() if other["term"] == each["term"])
    one = (await served.get("/api/logs/patterns", query=f"id:{line['example_id']}"))[1]["patterns"]
    assert [(each["pattern"], each["count"]) for each in one] == [("line *", 1)]
    few = (await served.get("/api/logs/patterns", limit="1", q="IT'S"))[1]
    assert [each["count"] for each in few["patterns"]] == [20] and few["more"]


async def test_a_large_day_is_sampled_and_that_is_said(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_READ_ENTRIES", 50)
    monkeypatch.setattr(patterns, "_SAMPLE", 20)
    await served.append(rows(100))
    body = (await served.get("/api/logs/patterns"))[1]
    assert [each["count"] for each in body["patterns"]] == [20]
    assert body["counted_back_to"] == (NOW + timedelta(milliseconds=80)).isoformat()


async def test_who_may_ask(served: Served) -> None:
    await served.append([*rows(2, "codex"), *rows(3)])
    body = (await served.get("/api/logs/patterns", "billing", query="service:core OR line"))[1]
    assert [each["service_name"] for each in body["patterns"]] == ["codex"]
    assert (await served.get("/api/logs/patterns", "client"))[0] == 403
    assert (await served.get("/api/logs/patterns", None))[0] == 401
