"""Users over HTTP, with a realm in memory: who may change whom, what is recorded, and that helmd never waits."""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from helmd.health.listeners import holder_of
from helmd.health.thread_pool import ThreadPool
from helmd.keycloak.admin.api import Session
from helmd.model.api.json_codec import from_json
from helmd.model.api.problem import Problem
from helmd.model.errors import DeniedError, HelmError, KeycloakAwayError, LockedError
from helmd.model.identity.audit import AuditedChange
from helmd.model.identity.peer import Peer, Place
from helmd.model.identity.realm import PROBE_USER
from helmd.model.identity.user_table import read_user_rows
from helmd.model.identity.users import UnknownUserError
from helmd.model.layout import layout
from helmd.operations.identity.user_access import no_confirmation
from helmd.operations.identity.user_exchange import ImportFiles, export_users, import_users
from helmd.operations.identity.user_index import UserIndex
from helmd.operations.identity.users import Confirm, Users
from helmd.operations.jobs.engine import JobEngine
from helmd.systemd.bus import Manager
from helmd.web.api.users import MAX_USER_REQUESTS, UserHandlers
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Access, Identity, Role
from helmd.web.server import HttpServer, application
from helmd.web.user_routes import user_routes
from tests.unit.realm_stand_in import RealmStandIn
from tests.unit.test_jobs_api import FakeManager
from tests.waiting import WITHIN, eventually

REALM = "hivematrix"


def users_of(realm: RealmStandIn, lock: Path, confirm: Confirm = no_confirmation) -> Users:
    return Users(cast(Session, realm), REALM, lock, confirm)


class CallersOf(Callers):
    """Everybody is an admin, by the way that the request names: no credential is checked here."""

    async def authorize(self, request: web.Request, access: Access) -> Identity | None:
        via = request.headers.get("Via-Test", "socket")
        logins = {"fresh": time.time() - 5, "old": time.time() - 3600}
        made = Identity("amira", Role.ADMIN, "session" if via in logins else cast(Any, via), login_at=logins.get(via))
        request["caller"] = made
        return made


@dataclass
class Served:
    """A server with the routes about users."""

    realm: RealmStandIn
    manager: FakeManager
    imports: Path
    changes: list[AuditedChange]
    client: aiohttp.ClientSession

    async def __call__(self, method: str, path: str, body: object = None, via: str = "socket", **more: str) -> Any:
        headers = {"Via-Test": via, **more} | ({"Content-Type": "application/json"} if body is not None else {})
        data = None if body is None else json.dumps(body)
        url = f"http://helm/api/keycloak{path}"
        async with self.client.request(method, url, data=data, headers=headers) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if "json" in reply.content_type else text, reply.headers


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    places, realm, manager = layout({}, tmp_path, 1000, tmp_path / "share"), RealmStandIn(), FakeManager()
    manager.run = lambda job_id: None

    class Source:
        index = UserIndex(lambda: 0.0)

        def users(self, confirm: Confirm) -> Users:
            return users_of(realm, places.user_lock, confirm)

    engine = JobEngine(places, "b" * 32, lambda: cast(Manager, manager))
    files = ImportFiles(places.user_imports)
    handlers = UserHandlers(Source(), ThreadPool(4).run, lambda: "http://localhost:5004", engine, files)
    changes: list[AuditedChange] = []
    callers = CallersOf(lambda _: Peer(Place.HERE, "127.0.0.1", "session-3.scope"))
    server = HttpServer(application(user_routes(handlers), callers, changes.append), tmp_path / "s", holder_of)
    await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "s"))) as client:
        yield Served(realm, manager, places.user_imports, changes, client)
    realm.go_on.set()
    await server.stop()


async def test_a_user_from_the_beginning_to_the_end(served: Served) -> None:
    made = {"username": "Zed", "email": "zed@example.org", "firstName": "Zed", "groups": ["client"], "more": 1}
    status, body, headers = await served("POST", "/users", made | {"generate_password": True}, via="token")
    assert (status, body["success"], body["message"]) == (201, True, "User created successfully")
    id, password = body["user"]["id"], body["password"]
    assert headers["Location"].endswith(f"/api/keycloak/users/{id}") and len(password) == 20
    assert served.realm.passwords[id] == {"type": "password", "value": password, "temporary": True}
    assert (await served("POST", "/users", made))[0] == 409
    served.realm.logins = [{"time": 1795411858268, "userId": id}]
    _, found, _ = await served("GET", f"/users/{id}")
    assert (found["username"], found["admin"], found["locked"], found["failed_logins"]) == ("zed", False, True, 11)
    assert [group["name"] for group in found["groups"]] == ["client"]
    assert found["last_login_at"].startswith("2026-11-23T05:30:58") and found["logins_since"]
    _, body, _ = await served("PUT", f"/users/{id}", {"email": "z@example.org", "enabled": False, "x": 1}, via="token")
    assert (body["message"], body["user"]["email"], body["user"]["firstName"]) == (
        "User updated successfully",
        "z@example.org",
        "Zed",
    )
    assert not served.realm.users[id]["emailVerified"] and served.realm.logged_out == [id]
    assert (await served("POST", f"/users/{id}/enable", via="token"))[0] == 200 and served.realm.users[id]["enabled"]
    for action in ("unlock", "logout", "disable"):
        assert (await served("POST", f"/users/{id}/{action}", {"reason": "why"}, via="token"))[0] == 200
    assert served.realm.unlocked == [id] and served.realm.logged_out == [id] * 3
    _, body, _ = await served("GET", f"/users/{id}/sessions")
    assert body["sessions"][0]["clients"] == ["helm"]
    _, body, _ = await served("PUT", f"/users/{id}/groups", {"groups": ["technicians"]}, via="token")
    assert (body["added"], body["removed"], body["success"]) == (["technicians"], ["client"], True)
    _, body, _ = await served("GET", f"/users/{id}/groups")
    assert [group["name"] for group in body["groups"]] == ["technicians"]
    status, body, _ = await served("DELETE", f"/users/{id}", via="token")
    assert (status, body["message"], served.realm.users) == (200, "User deleted successfully", {})
    assert {(await served("GET", f"/users/{id}{part}"))[0] for part in ("", "/groups", "/sessions")} == {404}
    status, body, _ = await served("DELETE", f"/users/{id}")
    assert (status, body["code"]) == (404, "unknown_user")


async def test_what_is_missing_or_wrong_is_named(served: Served) -> None:
    id = served.realm.add_user("ada")
    for method, path, body, said in (
        ("POST", "/users", {"username": "zed"}, "email: is missing"),
        ("POST", "/users", {"username": "z", "email": "zed@example.org"}, "username: must have 3 to 255"),
        (
            "POST",
            "/users",
            {"username": "zed", "email": "zed@example.org", "groups": ["x"]},
            "groups: there is no group",
        ),
        ("POST", "/users", {"username": "zed", "email": "zed@example.org", "password": "short"}, "Password policy"),
        ("PUT", f"/users/{id}", {"email": "x"}, "email: must be an email address"),
        ("POST", f"/users/{id}/reset-password", {}, "password: is missing"),
        ("POST", f"/users/{id}/reset-password", {"password": "short"}, "password: Invalid password: minimum length"),
        ("PUT", f"/users/{id}/groups", {}, "groups: is missing"),
        ("PUT", f"/users/{id}/groups", {"groups": ["nosuch"]}, "groups: there is no group 'nosuch'"),
        ("GET", "/users?max=0", None, "max: "),
        ("GET", "/users?group=client&search=a", None, "group: can't be combined"),
        ("GET", "/users?enabled=perhaps", None, "enabled: must be one of"),
    ):
        status, answer, _ = await served(method, path, body)
        assert status == 400 and answer["error"].startswith(said), (path, answer)
    assert list(served.realm.users) == [id]


async def test_no_id_leads_to_the_realm_itself(served: Served) -> None:
    """Servers take ``..`` as the segment above, also where it is escaped. The realm has ``enabled`` as users do."""
    before = dict(served.realm.realm)
    for method, rest, body in (
        ("GET", "", None),
        ("GET", "/groups", None),
        ("GET", "/sessions", None),
        ("PUT", "", {"enabled": False}),
        ("PUT", "/groups", {"groups": []}),
        ("POST", "/disable", {}),
        ("POST", "/unlock", {}),
        ("POST", "/logout", {}),
        ("POST", "/reset-password", {"generate_password": True}),
        ("DELETE", "", None),
    ):
        for id in ("%2e%2e", "%2E"):
            url = URL(f"http://helm/api/keycloak/users/{id}{rest}", encoded=True)
            async with served.client.request(method, url, json=body, headers={"Via-Test": "token"}) as reply:
                answer = json.loads(await reply.text())
            assert (reply.status, answer["code"]) == (404, "unknown_user"), (method, url)
    assert served.realm.realm == before and served.realm.asked == []


async def test_lists_are_paged(served: Served) -> None:
    for number in range(5):
        served.realm.add_user(f"user{number}", "/client", enabled=number != 3)
    _, body, headers = await served("GET", "/users?max=2&first=2")
    assert [user["username"] for user in body["users"]] == ["user2", "user3"] and body["total"] == 5
    assert 'first=4>; rel="next"' in headers["Link"] and 'first=0>; rel="prev"' in headers["Link"]
    _, body, headers = await served("GET", "/users?search=user&max=5")
    assert (len(body["users"]), body["total"]) == (5, 5) and "Link" not in headers
    _, body, _ = await served("GET", "/users?enabled=false")
    assert [user["username"] for user in body["users"]] == ["user3"]
    _, body, _ = await served("GET", "/users?group=client&max=4")
    assert (len(body["users"]), body["total"]) == (4, None)
    for query, requests in (("", 1), ("?max=2", 3), ("?max=2&first=4", 2), ("?first=9", 3)):
        served.realm.asked.clear()
        _, body, _ = await served("GET", f"/users{query}")
        assert (len(served.realm.asked), body["total"]) == (requests, 5), "however many users there are"
    _, text, headers = await served("GET", "/users/export")
    assert text.startswith("username,email,firstName,lastName,enabled,groups\r\nuser0,") and text.count("client") == 5
    assert headers["Content-Type"].startswith("text/csv")


async def test_the_account_that_looks_at_pages_is_not_a_person(served: Served) -> None:
    """It is on no list, whichever page it would be on, and can't be changed."""
    realm = served.realm
    names = [f"user{number}" for number in range(5)]
    for name in names[:2]:
        realm.add_user(name)
    probe = realm.add_user(PROBE_USER)
    for name in names[2:]:
        realm.add_user(name)
    for most in (1, 2, 3, 6, 100):
        shown, path = [], f"/users?max={most}"
        while path:
            _, body, headers = await served("GET", path)
            shown += [user["username"] for user in body["users"]]
            assert body["total"] == 5
            following = re.search(r"<[^>]*(/users\?[^>]*)>; rel=\"next\"", headers.get("Link", ""))
            path = following[1] if following else ""
        assert shown == names, most
    _, body, _ = await served("GET", "/users?search=helm")
    assert (body["users"], body["total"]) == ([], 0)
    for change in ("disable", "logout"):
        status, body, _ = await served("POST", f"/users/{probe}/{change}", {"reason": "why"})
        assert status == 403 and "not a person" in body["error"]
    assert (await served("PUT", f"/users/{probe}/groups", {"groups": ["admins"]}))[0] == 403
    _, text, _ = await served("GET", "/users/export")
    assert PROBE_USER not in text and text.count("user") > 5


async def test_details_of_a_list_cost_requests_by_group_not_by_user(served: Served) -> None:
    realm = served.realm
    ids = [realm.add_user(f"user{number:03}", "/client") for number in range(300)]
    realm.logins = [{"time": 1795411858268 + n, "userId": ids[n % 2]} for n in range(700)]
    realm.asked.clear()
    _, body, _ = await served("GET", "/users?details=true&max=300")
    assert {tuple(user["groups"]) for user in body["users"]} == {("client",)} and len(realm.asked) <= 10
    new = realm.add_user("new", "/technicians", createdTimestamp=int(time.time() * 1000))
    assert [bool(user.get("last_login_at")) for user in body["users"]] == [True, True] + [False] * 298
    assert body["users"][1]["last_login_at"].startswith("2026-11-23T05:30:58.967") and body["logins_since"]
    realm.asked.clear()
    await served("GET", "/users?details=true&max=100")
    assert len(realm.asked) == 3, "the rest is some seconds old at most"
    await served("PUT", f"/users/{ids[0]}/groups", {"groups": ["technicians"]})
    _, body, _ = await served("GET", "/users?details=true")
    assert body["users"][0]["groups"] == ["technicians"], "unless helmd itself has changed it"
    _, body, _ = await served("GET", "/users?details=true&search=new")
    assert [(user["id"], user["groups"]) for user in body["users"]] == [(new, ["technicians"])], "or it is newer"


async def test_a_list_does_not_wait_long_for_groups(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.operations.identity.user_index.FIRST_SECONDS", 0.05)
    served.realm.add_user("ada", "/client")
    served.realm.go_on.clear()
    _, body, _ = await served("GET", "/users?details=true")
    assert "groups" not in body["users"][0]
    monkeypatch.setattr("helmd.operations.identity.user_index.FIRST_SECONDS", WITHIN)
    served.realm.go_on.set()
    _, body, _ = await served("GET", "/users?details=true")
    assert body["users"][0]["groups"] == ["client"]


def test_last_logins_are_read_on_from_where_they_were(tmp_path: Path) -> None:
    realm, now = RealmStandIn(), 0.0
    index, users = UserIndex(lambda: now), users_of(realm, tmp_path / "lock")
    realm.logins = [{"time": 1795411858268 + n, "userId": f"user{n % 3}"} for n in range(2000)]
    assert len(index.logins(users).times) == 3 and len(realm.asked) == 5
    realm.logins.append({"time": 1795411999000, "userId": "user1"})
    now, realm.asked = 31.0, []
    assert index.logins(users).times["user1"].isoformat() == "2026-11-23T05:33:19+00:00" and len(realm.asked) == 1


PRIVILEGED = ("admins", "nested", "named alike", "role", "group with a role")


@pytest.mark.parametrize("how", PRIVILEGED)
async def test_through_the_gateway_admins_are_out_of_reach(served: Served, how: str) -> None:
    """However somebody is one: what changes one, makes one, or makes somebody one needs a recent login."""
    realm = served.realm
    realm.add_user("other", "/admins")
    path = {"admins": "/admins", "nested": "/admins/deputies", "named alike": "/client/admins"}.get(how, "/special")
    if path.count("/") == 2 or path == "/special":
        above = path.rpartition("/")[0]
        special = realm.add_group(path.rpartition("/")[2], realm.group(above) if above else "")
        realm.managers |= {special} if how == "group with a role" else set()
    groups = [] if how == "role" else [path]
    ada, bob = realm.add_user("ada", *groups), realm.add_user("bob", "/client")
    realm.managers |= {ada} if how in ("role", "group with a role") else set()
    new = {"username": "eve", "email": "eve@example.org", "groups": groups}
    requests: list[tuple[str, str, object]] = [
        ("PUT", f"/users/{ada}", {"email": "x@example.org"}),
        ("PUT", f"/users/{ada}", {"enabled": False}),
        ("POST", f"/users/{ada}/reset-password", {"password": "long enough"}),
        ("POST", f"/users/{ada}/reset-password", {"generate_password": True}),
        ("PUT", f"/users/{ada}/groups", {"groups": [*groups, "technicians"]}),
        ("PUT", f"/users/{ada}/groups", {"groups": []}),
        *((("POST", f"/users/{ada}/{action}", None)) for action in ("disable", "enable", "unlock", "logout")),
        ("DELETE", f"/users/{ada}", None),
        *([("PUT", f"/users/{bob}/groups", {"groups": groups}), ("POST", "/users", new)] if groups else []),
    ]
    before = json.dumps(realm.users), {key: set(members) for key, members in realm.members.items()}
    for via in ("token", "old", "machine"):
        for method, where, body in requests:
            status, answer, _ = await served(method, where, body, via=via)
            assert (status, answer["code"]) == (403, "login_needed"), (where, answer)
            assert "log in at http://localhost:5004/helm/login?fresh=1" in answer["hint"]
    assert (json.dumps(realm.users), realm.members) == before and not realm.passwords and not realm.logged_out
    for method, where, body in requests:
        status, answer, _ = await served(method, where, body, via="fresh" if method != "DELETE" else "socket")
        assert status in (200, 201), (where, answer)


async def test_the_last_admin_is_protected_from_everybody(served: Served) -> None:
    realm = served.realm
    ada = realm.add_user("ada", "/admins", "/client")
    realm.add_user("bob", "/admins", enabled=False)
    for via in ("socket", "fresh", "token"):
        for method, path, body in (
            ("DELETE", f"/users/{ada}", None),
            ("POST", f"/users/{ada}/disable", None),
            ("PUT", f"/users/{ada}", {"enabled": False, "firstName": "A"}),
            ("PUT", f"/users/{ada}/groups", {"groups": []}),
            ("PUT", f"/users/{ada}/groups", {"groups": ["client", "technicians"]}),
        ):
            status, answer, _ = await served(method, path, body, via=via)
            assert (status, answer["code"]) == (403, "denied"), answer
            assert answer["error"].startswith("ada is the last enabled member of group admins")
    assert realm.users[ada]["enabled"] and realm.groups_of(ada) == ["/admins", "/client"] and not realm.logged_out
    admin = realm.add_user("admin", "/admins")
    status, answer, _ = await served("DELETE", f"/users/{admin}")
    assert (status, answer["error"]) == (403, "the account admin can't be deleted")
    assert (await served("POST", f"/users/{ada}/disable"))[0] == 200, "admin is left"
    machine = realm.add_user("service-account-helm-admin")
    for method, path in (("DELETE", ""), ("POST", "/disable"), ("POST", "/logout")):
        assert (await served(method, f"/users/{machine}{path}"))[0] == 403


def test_two_at_once_cannot_remove_the_last_two(tmp_path: Path) -> None:
    """Each by a way of its own, each in a thread of its own, ten times over."""
    ways: list[Callable[[Users, str], object]] = [
        lambda users, id: users.disable(id),
        lambda users, id: users.delete(id),
        lambda users, id: users.set_groups(id, ("client",)),
        lambda users, id: users.edit(id, enabled=False),
    ]
    lock = tmp_path / "lock"
    for turn in range(10):
        realm = RealmStandIn()
        realm.pause = 0.002
        ids = [realm.add_user(name, "/admins") for name in ("ada", "bob")]
        refused = at_once(
            [partial(ways[(turn + number) % 4], users_of(realm, lock), id) for number, id in enumerate(ids)]
        )
        left = [id for id in realm.members[realm.group("/admins")] if realm.users[id]["enabled"]]
        assert len(left) == 1 and len(refused) == 1


def at_once(work: list[Callable[[], object]]) -> list[DeniedError]:
    """Do WORK in threads that begin together; the refusals are returned."""
    refused: list[DeniedError] = []
    start = threading.Barrier(len(work))

    def run(what: Callable[[], object]) -> None:
        start.wait()
        try:
            what()
        except DeniedError as error:
            refused.append(error)

    threads = [threading.Thread(target=run, args=(what,)) for what in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused


def test_a_lock_is_waited_for_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from helmd.files.lock import locked

    monkeypatch.setattr("helmd.operations.identity.users.LOCK_SECONDS", 0.1)
    realm = RealmStandIn()
    id = realm.add_user("ada")
    with locked(tmp_path / "lock", "something goes on"), pytest.raises(LockedError, match="users are being changed"):
        users_of(realm, tmp_path / "lock").disable(id)
    assert users_of(realm, tmp_path / "lock").disable(id).enabled is False


async def test_changes_are_recorded_without_passwords(served: Served) -> None:
    realm = served.realm
    ada = realm.add_user("ada")
    await served("POST", f"/users/{ada}/reset-password", {"password": "open sesame", "reason": "forgotten"})
    await served("POST", f"/users/{ada}/reset-password", {"generate_password": True})
    await served("PUT", f"/users/{ada}/groups", {"groups": ["client"]}, via="token")
    await served("PUT", f"/users/{ada}", {"enabled": False})
    await served("DELETE", f"/users/{ada}")
    await served("DELETE", f"/users/{ada}")
    made = [realm.passwords[ada]["value"], "open sesame"]
    assert [(each.result, each.reason, each.detail) for each in served.changes] == [
        ("done", "forgotten", f"user ada ({ada}), temporary password"),
        ("done", "", f"user ada ({ada}), generated password"),
        ("done", "", f"user ada ({ada}), groups +client"),
        ("done", "", f"user ada ({ada}), enabled false"),
        ("done", "", f"user ada ({ada})"),
        ("failed", "", f"unknown_user: there is no user '{ada}'"),
    ]
    assert not any(password in str(each) for each in served.changes for password in made)
    assert {each.actor for each in served.changes} == {"amira"}


async def test_while_keycloak_is_away_it_is_said_and_nothing_waits(served: Served) -> None:
    served.realm.away = True
    status, body, _ = await served("GET", "/users")
    assert (status, body["code"]) == (503, "keycloak_away") and "helmctl logs keycloak" in body["hint"]
    problem = from_json(Problem, body)
    assert problem.error == "Keycloak does not answer"


async def test_a_slow_keycloak_holds_up_few_and_nobody_else(served: Served) -> None:
    served.realm.go_on.clear()
    waiting = [asyncio.create_task(served("GET", "/groups")) for _ in range(MAX_USER_REQUESTS + 3)]
    refused = await eventually(lambda: done if len(done := [task for task in waiting if task.done()]) >= 3 else [])
    assert (await served("GET", "/nosuch"))[0] == 404, "helmd goes on"
    assert [(task.result()[0], task.result()[1]["code"]) for task in refused] == [(503, "busy")] * 3
    assert sum(task.done() for task in waiting) == 3
    served.realm.go_on.set()
    assert sorted(status for status, *_ in await asyncio.gather(*waiting)) == [200] * MAX_USER_REQUESTS + [503] * 3


TABLE = "username,email,groups\nada,ada@example.org,client\nbob,bob@example.org,admins\nx,y,\n"


async def test_an_import_is_a_job_that_takes_its_file(served: Served) -> None:
    body = {"csv": TABLE, "reason": "a new school year"}
    status, answer, headers = await served("POST", "/users/import", body, via="token")
    assert status == 202 and headers["Location"].endswith(f"/api/jobs/{answer['job']['id']}")
    words = served.manager.words[-1][3:]
    assert words[:3] == ["users", "import", "--json"] and "--no-admins" in words and "--dry-run" not in words
    (file,) = served.imports.iterdir()
    assert words[-2:] == ["--take", str(file)]
    assert (file.stat().st_mode & 0o777, served.imports.stat().st_mode & 0o777) == (0o600, 0o700)
    assert ImportFiles(served.imports).take(file) == TABLE.encode() and not file.exists()
    await served("POST", "/users/import", body | {"dry_run": True}, via="fresh", **{"Idempotency-Key": "k"})
    words = served.manager.words[-1]
    assert "--no-admins" not in words and "--dry-run" in words
    first = await served("POST", "/users/import", body | {"dry_run": True}, via="fresh", **{"Idempotency-Key": "k"})
    assert len(served.manager.words) == 2 and first[0] == 202, "the same job"
    other = {"csv": "x", "dry_run": True}
    status, answer, _ = await served("POST", "/users/import", other, via="fresh", **{"Idempotency-Key": "k"})
    assert (status, answer["code"]) == (422, "idempotency_key_reused")
    assert len(list(served.imports.iterdir())) == 1, "what was refused leaves no file"
    for outside in ("/etc/passwd", served.imports / "../../x.csv", served.imports / "missing.csv"):
        with pytest.raises(HelmError):
            ImportFiles(served.imports).take(Path(outside))


def test_an_import_does_each_row_once_and_can_be_repeated(tmp_path: Path) -> None:
    realm = RealmStandIn()
    realm.add_user("old", email="old@example.org")
    text = (
        "username,email,groups,password\n"
        "ada,ada@example.org,client,a long password\n"
        "old,old@example.org,,\n"
        "old2,old@example.org,,\n"
        "OLD,other@example.org,,\n"
        "bob,bob@example.org,nosuch,\n"
        "eve,eve@example.org,admins,\n"
        "weak,weak@example.org,,short\n"
        "last,last@example.org,,\n"
    )

    def refuse(what: str) -> None:
        raise DeniedError(f"{what} needs a login")

    rows = list(read_user_rows(text))
    tried = list(import_users(users_of(realm, tmp_path / "lock", refuse), rows, True))
    assert [each.outcome for each in tried].count("would_create") == 3 and len(realm.users) == 1
    reports = list(import_users(users_of(realm, tmp_path / "lock", refuse), rows, False))
    assert [(each.row, each.outcome) for each in reports] == [
        (2, "created"),
        (3, "unchanged"),
        (4, "failed"),
        (5, "failed"),
        (6, "failed"),
        (7, "failed"),
        (8, "failed"),
        (9, "created"),
    ]
    reasons = [each.reason for each in reports if each.outcome == "failed"]
    assert [reason.split(":")[0] for reason in reasons[:3]] == ["email", "username", "groups"]
    assert "needs a login" in reasons[3] and reasons[4] == "Password policy not met"
    assert sorted(user["username"] for user in realm.users.values()) == ["ada", "last", "old"]
    (ada,) = [id for id, user in realm.users.items() if user["username"] == "ada"]
    assert realm.groups_of(ada) == ["/client"] and realm.passwords[ada]["temporary"] is True
    again = list(import_users(users_of(realm, tmp_path / "lock", refuse), rows, False))
    assert {each.outcome for each in again} == {"unchanged", "failed"} and len(realm.users) == 3
    realm.away = True
    with pytest.raises(KeycloakAwayError):
        list(import_users(users_of(realm, tmp_path / "lock"), rows, False))


def test_an_export_asks_by_group(tmp_path: Path) -> None:
    realm = RealmStandIn()
    for number in range(1200):
        realm.add_user(f"user{number:04}", "/client")
    realm.asked.clear()
    text = export_users(users_of(realm, tmp_path / "lock"))
    assert text.count("\r\n") == 1201 and len(realm.asked) < 15
    assert {row.split(",")[-1] for row in text.split("\r\n")[1:-1]} == {"client"}


def test_a_user_is_found_by_name_email_or_id(tmp_path: Path) -> None:
    realm = RealmStandIn()
    id = realm.add_user("ada")
    users = users_of(realm, tmp_path / "lock")
    assert {users.find(wanted).id for wanted in ("ada", "ADA", "ada@example.org", id)} == {id}
    for wanted in ("nobody", "nobody@example.org", "../x", ""):
        with pytest.raises(UnknownUserError, match="there is no user"):
            users.find(wanted)
    assert replace(users.find(id)).username == "ada"
