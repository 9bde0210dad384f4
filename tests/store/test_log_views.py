"""Saved views of the log page, over real sockets, in a real store."""

from typing import Any

import pytest

from helmd.store.logs import views
from tests.store.log_server import Served, token

VIEW = {
    "name": "Errors <b>",
    "query": 'level>=error -"health check"',
    "columns": ["host", "context.status"],
    "last": "1h",
    "start_time": None,
    "end_time": None,
    "shared": False,
}


async def sent(served: Served, method: str, path: str, role: str | None = "technician", body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {token(role)}"} if role else {}
    async with served.session.request(method, served.url(path), json=body, headers=headers) as answer:
        return answer.status, await answer.json() if answer.content_length else None


async def names(served: Served, role: str) -> list[tuple[str, bool]]:
    return [(view["name"], view["own"]) for view in (await served.get("/api/views", role))[1]["views"]]


async def test_views_are_saved_replaced_shared_and_removed(served: Served) -> None:
    code, saved = await sent(served, "POST", "/api/views", body=VIEW)
    assert code == 201 and {key: saved[key] for key in VIEW} == VIEW and saved["own"]
    assert await names(served, "technician") == [("Errors <b>", True)]
    assert await names(served, "admin") == []
    code, again = await sent(served, "POST", "/api/views", body=VIEW | {"last": "", "shared": True})
    assert code == 201 and again["id"] == saved["id"] and again["last"] == ""
    assert await names(served, "admin") == [("Errors <b>", False)]
    await sent(served, "POST", "/api/views", "admin", {"name": "mine"})
    assert await names(served, "admin") == [("mine", True), ("Errors <b>", False)]
    mine = (await served.get("/api/views", "admin"))[1]["views"][0]["id"]
    code, body = await sent(served, "DELETE", f"/api/views/{mine}")
    assert (code, body["code"]) == (404, "unknown_view")
    assert (await sent(served, "DELETE", f"/api/views/{saved['id']}", "admin"))[0] == 204
    assert (await sent(served, "DELETE", f"/api/views/{mine}", "admin"))[0] == 204
    assert (await sent(served, "DELETE", f"/api/views/{'9' * 30}"))[0] == 404
    assert await names(served, "admin") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 81},
        {"query": "sevice:x"},
        {"query": "x" * 2001},
        {"columns": ["nothing"]},
        {"columns": ["host"] * 21},
        {"last": "1 hour"},
        {"last": "1h", "start_time": "2026-01-01T00:00:00Z"},
        {"start_time": "yesterday"},
        {"shared": "yes"},
        {"query": "a\0b"},
    ],
)
async def test_what_makes_no_sense_is_refused(served: Served, wrong: dict[str, object]) -> None:
    code, body = await sent(served, "POST", "/api/views", body=VIEW | wrong)
    assert (code, body["code"]) == (400, "usage"), body
    assert await names(served, "technician") == []


async def test_there_are_not_too_many(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_VIEWS", 2)
    for name in ("one", "two", "one"):
        assert (await sent(served, "POST", "/api/views", body={"name": name}))[0] == 201
    code, body = await sent(served, "POST", "/api/views", body={"name": "three"})
    assert (code, body["code"]) == (409, "too_many_views")


async def test_who_may_have_views(served: Served) -> None:
    for role, code in (("billing", 403), ("client", 403), (None, 401)):
        assert (await served.get("/api/views", role))[0] == code
        assert (await sent(served, "POST", "/api/views", role, VIEW))[0] == code
        assert (await sent(served, "DELETE", "/api/views/1", role))[0] == code
