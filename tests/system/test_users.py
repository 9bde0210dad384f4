"""Users in the real Keycloak, by helmctl, the API and the gateway: what is protected, CSV, and how fast it is.

`scripts/campaign users` does it with 10,000 users and a file of 1,000 rows.
"""

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.campaign import scaled
from tests.system.booted import Sandbox, superuser_sql, until
from tests.system.keycloak_admin import GATEWAY, KEYCLOAK, REALM, Admin, Answer, Person, ask, log_in, person
from tests.system.test_jobs import SOCKET, api, job_of

PEOPLE = scaled(10_000, 200)
ROWS = scaled(1_000, 60)
FAULTY = 20
WITHIN = scaled(0.3, 1.0)
"""Seconds in which 95 of 100 searches are answered: in the campaign the aim, else what only a fault exceeds."""
TAG = secrets.token_hex(3)
USERS = "/api/keycloak/users"

SEARCHES = r"""
import http.client, json, socket, sys, time
given = json.load(sys.stdin)
connection = http.client.HTTPConnection("helm", timeout=60)
def ask(path):
    # One connection a request, as a program makes them.
    connection.close()
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(given["socket"])
    began = time.perf_counter()
    connection.request("GET", path)
    reply = connection.getresponse()
    body = json.loads(reply.read())
    assert reply.status == 200, body
    return time.perf_counter() - began, len(body["users"]), body["total"]
print(json.dumps([ask(path) for path in given["paths"]]))
"""


def answers_to(box: Sandbox, paths: list[str]) -> list[tuple[float, int, int]]:
    """Seconds, users and total of each list, asked for over the account's socket one after the other."""
    given = json.dumps({"socket": SOCKET, "paths": paths})
    return [tuple(each) for each in json.loads(box.python(SEARCHES, stdin=given, timeout=300).out)]


def p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.95) - 1]


@pytest.fixture(scope="module")
def people(demo: Sandbox) -> Iterator[list[str]]:
    """Names of many users in the group client, made by Keycloak's own import; gone at the end."""
    admin = Admin(demo)
    names = [f"{TAG}-{number:05}" for number in range(PEOPLE)]
    try:
        for first in range(0, PEOPLE, 250):
            users = [
                {
                    "username": name,
                    "enabled": True,
                    "email": f"{name}@example.org",
                    "firstName": f"Given{number % 97}",
                    "lastName": f"Family{number}",
                    "groups": ["/client"],
                }
                for number, name in enumerate(names[first : first + 250], first)
            ]
            done = admin("POST", f"/{REALM}/partialImport", {"ifResourceExists": "SKIP", "users": users})
            assert done.code == 200 and done.json()["added"] == len(users), done
        yield names
    finally:
        remove_all(demo, TAG)


USERS_TABLES = ("credential", "user_attribute", "user_group_membership", "user_required_action", "user_role_mapping")
"""Of Keycloak's database: what refers to the users that tests make, besides sessions."""


def remove_all(box: Sandbox, prefix: str) -> None:
    """Remove the users whose names begin with PREFIX: in the database, since Keycloak takes minutes for 10,000."""
    whose = f"SELECT id FROM user_entity WHERE username LIKE '{prefix}%'"
    statements = [f"DELETE FROM {table} WHERE user_id IN ({whose})" for table in USERS_TABLES]
    superuser_sql(box, "; ".join([*statements, f"DELETE FROM user_entity WHERE username LIKE '{prefix}%'"]), "keycloak")


@pytest.mark.alone
def test_searches_are_answered_in_time(demo: Sandbox, people: list[str]) -> None:
    """Infix searches for all kinds of words, from rare to everybody, with the page and the count of each."""
    # As pages ask: for some rows at a time.
    words = [
        *(f"search={TAG}-{number * 37 % PEOPLE:05}" for number in range(40)),
        *(f"search=Family{number * 13 % PEOPLE}" for number in range(20)),
        *(f"search=given{number}%20{TAG}" for number in range(20)),
        *(f"search={TAG}&first={number * PEOPLE // 20}" for number in range(10)),
        *(f"search=nobody-{number}" for number in range(10)),
    ]
    found = answers_to(demo, [f"{USERS}?{word}&max=50" for word in words])
    searched = p95([seconds for seconds, _, _ in found])
    assert found[0][1:] == (1, 1) and found[80][1:] == (50, PEOPLE) and found[-1][1:] == (0, 0)
    detailed = answers_to(demo, [f"{USERS}?details=true&search={TAG}&max=50&first={n}" for n in range(20)])
    first, listed = detailed[0][0], p95([seconds for seconds, _, _ in detailed[1:]])
    print(
        f"\n{PEOPLE:,} users: search p95 {searched * 1000:.0f} ms of {len(found)}, with groups and logins"
        f" {listed * 1000:.0f} ms, the first {first:.2f} s"
    )
    assert searched < WITHIN and listed < WITHIN

    def groups() -> set[tuple[str, ...]]:
        _, whole = api(demo, "GET", f"{USERS}?details=true&search={TAG}")
        return {tuple(user.get("groups", ())) for user in whole["users"]}

    until(lambda: groups() == {("client",)}, 60)
    listed_by_cli = json.loads(demo.helmctl("users", "list", "--json", "-n", "7", f"{TAG}-0000").out)
    assert [user["username"] for user in listed_by_cli] == people[:7]


def table(name: str) -> tuple[str, dict[int, str]]:
    """A CSV file with users and faulty rows among them: the rows that are faulty, and how their reports begin."""
    faults = [
        ("{0},{0}-at-example.org,,,,", "email: must be"),
        ("{0},,,,,", "email: is missing"),
        (",{0}@example.org,,,,", "username: must have"),
        ("a b,{0}@example.org,,,,", "username: must have"),
        ("{0},{0}@example.org,<b>,,,", "firstName: has"),
        ("{0},{0}@example.org,,,maybe,", "enabled: must be"),
        ("{0},{0}@example.org,,,,no-such-group", "groups: there is no group"),
        ("{0},{0}@example.org", "it has 2 columns"),
        (f"{name}-0000,{{0}}@example.org,,,,", "username: row 2 has the same"),
        (f"{{0}},{name}-0000@example.org,,,,", "email: row 2 has the same"),
    ]
    lines, expected = ["username,email,firstName,lastName,enabled,groups"], dict[int, str]()
    for number in range(ROWS):
        word = f"{name}-{number:04}"
        if number % (ROWS // FAULTY) == ROWS // FAULTY - 1:
            line, said = faults[len(expected) % len(faults)]
            expected[number + 2] = said
            lines.append(line.format(word))
        else:
            lines.append(f'{word},{word}@example.org,Zoë,"Family, {number}",,client|technicians')
    return "\ufeff" + "\r\n".join(lines) + "\r\n", expected


def test_a_file_with_faulty_rows(demo: Sandbox) -> None:
    """A report about each of these, all others made once: also when the import is killed, and done again."""
    name = f"csv{TAG}"
    text, faulty = table(name)
    assert len(faulty) == FAULTY
    good = ROWS - FAULTY
    demo.write("/home/hive/people.csv", text)
    try:
        tried = demo.helmctl("users", "import", "--dry-run", "people.csv", check=False, timeout=300)
        assert tried.code == 1 and f"{good:,} would be created, 0 there already, {FAULTY} faulty" in tried.err
        killed = demo.shell("timeout -s KILL 1.5 helmctl users import people.csv", check=False)
        done = demo.helmctl("users", "import", "--json", "people.csv", check=False, timeout=300)
        rows = json.loads(done.out)
        assert done.code == 1 and len(rows) == ROWS
        reported = {row["row"]: row["reason"] for row in rows if row["outcome"] == "failed"}
        assert reported.keys() == faulty.keys(), killed
        assert all(reported[row].startswith(said) for row, said in faulty.items()), reported
        outcomes = [row["outcome"] for row in rows]
        assert outcomes.count("created") + outcomes.count("unchanged") == good
        assert all(f"row {row}" in done.err for row in faulty)
        ((_, listed, total),) = answers_to(demo, [f"{USERS}?search={name}&max=500"])
        assert (listed, total) == (min(good, 500), good)
        # Again, as a job of the API.
        status, answer = api(demo, "POST", f"{USERS}/import", {"csv": text})
        assert status == 202, answer
        job = until(lambda: (found := job_of(demo, answer["job"]["id"]))["ended_at"] and found, 120)
        assert job["state"] == "failed" and job["result"]["detail"].startswith(
            f"{ROWS:,} rows: 0 created, {good:,} there already, {FAULTY} faulty"
        )
        assert len(job["result"]["lines"]) == FAULTY
        assert demo.shell("ls ~/.local/state/hivematrix/user-imports").out == "", "the file is gone"
        exported = demo.helmctl("users", "export", timeout=120).out
        mine = [line for line in exported.splitlines() if line.startswith(name)]
        assert len(mine) == good and mine[0].startswith(f'{name}-0000,{name}-0000@example.org,Zoë,"Family, 0",true,')
        assert all(line.endswith((",client|technicians", ",technicians|client")) for line in mine)
    finally:
        demo("rm", "-f", "/home/hive/people.csv")
        remove_all(demo, name)


@dataclass
class Doors:
    """The ways to a user's change: helmctl, the API over the account's socket, and the gateway as an admin."""

    box: Sandbox
    cookie: str
    """Of a session of CHIEF's at the gateway."""
    chief: str
    """The only enabled member of admins."""

    def gateway(self, method: str, path: str, body: object = None) -> Answer:
        return ask(self.box, f"{GATEWAY}/helm{path}", method, body=body, headers=(f"Cookie: {self.cookie}",))

    def id_of(self, name: str) -> str:
        return str(json.loads(self.box.helmctl("users", "show", name, "--json").out)["id"])

    def groups_of(self, name: str) -> set[str]:
        return set(self.box.helmctl("users", "groups", name).out.split())

    def enabled(self, name: str) -> bool:
        return bool(json.loads(self.box.helmctl("users", "show", name, "--json").out)["enabled"])


@pytest.fixture(scope="module")
def doors(demo: Sandbox) -> Iterator[Doors]:
    """With the admin of the gateway as the only enabled member of admins, in the end not: as it was."""
    admin = Admin(demo)
    group = admin("GET", f"/{REALM}/groups?search=admins&exact=true").json()[0]["id"]
    with person(demo, "admins") as chief:
        others = [
            user["username"]
            for user in admin("GET", f"/{REALM}/groups/{group}/members").json()
            if user["enabled"] and user["username"] != chief.name
        ]
        made = Doors(demo, log_in(demo, chief).cookie, chief.name)
        for name in others:
            demo.helmctl("users", "disable", name)
        try:
            yield made
        finally:
            for name in others:
                demo.helmctl("users", "enable", name)


def test_the_last_enabled_admin_is_protected_at_every_door(demo: Sandbox, doors: Doors) -> None:
    chief = doors.chief
    id = doors.id_of(chief)
    last = f"{chief} is the last enabled member of group admins"
    for words in (
        ("delete", chief),
        ("disable", chief),
        ("groups", chief, "--remove", "admins"),
        ("groups", chief, "--set", ""),
        ("groups", chief, "--set", "client,technicians"),
    ):
        refused = demo.helmctl("users", *words, check=False)
        assert refused.code == 77 and last in refused.err, refused
    requests: list[tuple[str, str, object]] = [
        ("DELETE", f"{USERS}/{id}", None),
        ("POST", f"{USERS}/{id}/disable", None),
        ("PUT", f"{USERS}/{id}", {"enabled": False}),
        ("PUT", f"{USERS}/{id}/groups", {"groups": []}),
        ("PUT", f"{USERS}/{id}/groups", {"groups": ["client"]}),
    ]
    for method, path, body in requests:
        status, answer = api(demo, method, path, body)
        assert (status, answer["code"]) == (403, "denied") and last in answer["error"], answer
        reply = doors.gateway(method, path, body)
        assert (reply.code, reply.json()["code"]) == (403, "denied"), reply
    assert doors.enabled(chief) and doors.groups_of(chief) == {"admins"}
    refused = demo.helmctl("users", "delete", "admin", check=False)
    assert refused.code == 77 and "the account admin can't be deleted" in refused.err
    machine = Admin(demo)("GET", f"/{REALM}/clients?clientId=helm-admin").json()[0]["id"]
    account = Admin(demo)("GET", f"/{REALM}/clients/{machine}/service-account-user").json()["id"]
    status, answer = api(demo, "DELETE", f"{USERS}/{account}")
    assert status == 403 and "is the service account of client helm-admin" in answer["error"]


def test_two_commands_at_once_leave_one_admin(demo: Sandbox, doors: Doors) -> None:
    """One by helmctl, the other over the API."""
    chief = doors.chief
    with person(demo, "admins") as second:
        url = f"http://helm{USERS}/{doors.id_of(second.name)}/disable"
        both = f"helmctl users disable {chief} & curl -sS --unix-socket {SOCKET} -X POST {url} & wait"
        for _ in range(2):
            demo.shell(both)
            left = [name for name in (chief, second.name) if doors.enabled(name)]
            assert len(left) == 1
            demo.helmctl("users", "enable", *({chief, second.name} - set(left)))


def test_through_the_gateway_admins_are_out_of_reach(demo: Sandbox, doors: Doors) -> None:
    """Members of admins, of a group in it, of one that is called like it, and who has a role of realm-management."""
    admin = Admin(demo)
    admins = admin("GET", f"/{REALM}/groups?search=admins&exact=true").json()[0]["id"]
    client = admin("GET", f"/{REALM}/groups?search=client&exact=true").json()[0]["id"]
    made = []
    try:
        for above, name in ((admins, "deputies"), (client, "admins")):
            assert admin("POST", f"/{REALM}/groups/{above}/children", {"name": name}).code == 201
            listed = admin("GET", f"/{REALM}/groups/{above}/children").json()
            made.append(next(group["id"] for group in listed if group["name"] == name))
        with person(demo, "admins/deputies") as deputy, person(demo, "client/admins") as alike, person(demo) as bob:
            for name in (deputy.name, alike.name):
                id = doors.id_of(name)
                for method, path, body in (
                    ("POST", "/reset-password", {"password": "a new password"}),
                    ("PUT", "/groups", {"groups": []}),
                    ("POST", "/disable", None),
                    ("DELETE", "", None),
                ):
                    reply = doors.gateway(method, f"{USERS}/{id}{path}", body)
                    assert (reply.code, reply.json()["code"]) == (403, "login_needed"), reply
                    assert "log in at http://localhost:5004/helm/login" in reply.json()["hint"]
            id = doors.id_of(bob.name)
            for groups in (["admins"], ["/admins/deputies"], ["/client/admins"]):
                reply = doors.gateway("PUT", f"{USERS}/{id}/groups", {"groups": groups})
                assert (reply.code, reply.json()["code"]) == (403, "login_needed"), reply
                new = {"username": f"eve{TAG}", "email": f"eve{TAG}@example.org", "groups": groups}
                assert doors.gateway("POST", USERS, new).json()["code"] == "login_needed"
            assert doors.groups_of(bob.name) == set()
            reply = doors.gateway("PUT", f"{USERS}/{id}", {"firstName": "Bob", "lastName": "B"})
            assert reply.code == 200 and reply.json()["user"]["firstName"] == "Bob", reply
            reply = doors.gateway("PUT", f"{USERS}/{id}/groups", {"groups": ["technicians"]})
            assert reply.json()["added"] == ["technicians"], reply
    finally:
        for group in made:
            admin("DELETE", f"/{REALM}/groups/{group}")


def token_of(box: Sandbox, who: Person) -> Answer:
    """A login without a browser, by a client that is made for that."""
    form = {"grant_type": "password", "client_id": f"direct{TAG}", "username": who.name, "password": who.password}
    return ask(box, f"{KEYCLOAK}/realms/{REALM}/protocol/openid-connect/token", "POST", form)


@pytest.fixture
def login(demo: Sandbox) -> Iterator[Callable[[Person], Answer]]:
    admin = Admin(demo)
    client: dict[str, object] = {"clientId": f"direct{TAG}", "publicClient": True, "directAccessGrantsEnabled": True}
    assert admin("POST", f"/{REALM}/clients", client).code == 201
    try:
        yield lambda who: token_of(demo, who)
    finally:
        id = admin("GET", f"/{REALM}/clients?clientId=direct{TAG}").json()[0]["id"]
        admin("DELETE", f"/{REALM}/clients/{id}")


def test_a_user_by_helmctl(demo: Sandbox, login: Callable[[Person], Answer]) -> None:
    """Passwords, lock, sessions, last login, disabling; and that no password is in the records."""
    name = f"uma{TAG}"
    made = demo.helmctl("users", "create", name, f"{name}@example.org", "--first-name", "Uma", "--group", "client")
    first = made.out.strip()
    try:
        taken = demo.helmctl("users", "create", name, "other@example.org", check=False)
        assert (taken.code, taken.err) == (1, "error: User exists with same username\n")
        refused = login(Person(name, first))
        assert refused.code == 400 and "not fully set up" in refused.text, "it must be changed first"
        given = secrets.token_urlsafe(12)
        demo.helmctl("users", "reset-password", name, "--stdin", "--lasting", stdin=f"{given}\n")
        demo.helmctl("users", "edit", name, "--last-name", "Thur")
        assert login(Person(name, given)).code == 200
        shown = json.loads(demo.helmctl("users", "show", name, "--json").out)
        assert (shown["sessions"], shown["locked"], shown["groups"]) == (1, False, ["/client"])
        assert shown["last_login_at"] and shown["logins_since"] < shown["last_login_at"]
        assert len(json.loads(demo.helmctl("users", "sessions", name, "--json").out)) == 1
        demo.helmctl("users", "logout", name)
        assert json.loads(demo.helmctl("users", "sessions", name, "--json").out) == []
        # Two within a second are enough for Keycloak.
        for _ in range(3):
            login(Person(name, "wrong"))
        assert login(Person(name, given)).code != 200
        shown = json.loads(demo.helmctl("users", "show", name, "--json").out)
        assert shown["locked"] and shown["failed_logins"] >= 2
        demo.helmctl("users", "unlock", name)
        assert login(Person(name, given)).code == 200
        demo.helmctl("users", "disable", name, "--reason", "on leave")
        assert login(Person(name, given)).code == 400
        demo.helmctl("users", "enable", name)
        assert login(Person(name, given)).code == 200
    finally:
        demo.helmctl("users", "delete", name)
    audit = demo.helmctl("audit", "--json", "-n", "100").out
    actions = [each["action"] for each in json.loads(audit) if name in (each["detail"] or "")]
    assert {"users create", "users reset-password", "users disable", "users delete"} <= set(actions)
    journal = demo.helmctl("logs", "--journal", "helm", "--since", "10 min ago").out
    assert not any(password in text for password in (first, given) for text in (audit, journal))
    gone = demo.helmctl("users", "show", name, check=False)
    assert (gone.code, gone.err.splitlines()[0]) == (1, f"error: there is no user '{name}'")


def test_what_older_pages_send(demo: Sandbox, doors: Doors) -> None:
    """The requests of the agents page of Codex, through the gateway, in its order."""
    name = f"zed{TAG}"
    new: dict[str, object] = {"username": name, "email": f"{name}@example.org", "firstName": "Zed", "lastName": "Zee"}
    new |= {"enabled": True, "emailVerified": True, "theme": "dark"}
    made = doors.gateway("POST", USERS, new)
    assert (made.code, made.json()["message"]) == (201, "User created successfully"), made
    listed = doors.gateway("GET", f"{USERS}?search={name}").json()["users"]
    assert [user["username"] for user in listed] == [name]
    id = listed[0]["id"]
    reset = doors.gateway("POST", f"{USERS}/{id}/reset-password", {"password": "a long password", "temporary": False})
    assert (reset.code, reset.json()["message"]) == (200, "Password reset successfully")
    assert "a long password" not in reset.text
    changed = doors.gateway("PUT", f"{USERS}/{id}/groups", {"groups": ["technicians", "billing"]}).json()
    assert (set(changed["added"]), changed["removed"], changed["success"]) == ({"technicians", "billing"}, [], True)
    groups = doors.gateway("GET", f"{USERS}/{id}/groups").json()["groups"]
    assert {group["name"] for group in groups} == {"technicians", "billing"}
    offered = doors.gateway("GET", "/api/keycloak/groups").json()["groups"]
    assert {group["name"] for group in offered} >= {"admins", "technicians", "billing", "client"}
    again = doors.gateway("POST", USERS, new)
    assert again.code == 409 and again.json()["error"].startswith("User exists with same ")
    missing = doors.gateway("POST", USERS, {"username": "nobody"})
    assert missing.code == 400 and missing.json()["error"] == "email: is missing"
    gone = doors.gateway("DELETE", f"{USERS}/{id}")
    assert gone.json() == {"success": True, "message": "User deleted successfully"}
    assert doors.gateway("GET", f"{USERS}/{id}").code == 404
