"""`helmctl keycloak setup` and `status` with the real Keycloak: fresh, killed at each step, after changes by others.

The demo keeps its realm (master) and its temporary admin: both are as before at the end.
"""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.system.booted import Done, Sandbox
from tests.system.keycloak_admin import KEYCLOAK, SECRETS, Admin, ask, bootstrap_admin

REALM = "hivematrix"
GATEWAY = "https://localhost:8443"
FRONTEND = f"{GATEWAY}/keycloak"
CONFIG = "/home/hive/.config/hivematrix"
OWN_SECRET = f"{CONFIG}/secrets/helm-admin.secret"
CHOICE = f"{CONFIG}/services.d/zz-realm.toml"
CORE = "/home/hive/suite/core/.flaskenv"
SAID = "The first admin is admin, with the password "
BY_ADMIN = "Run: helmctl keycloak setup --login NAME, with an admin of Keycloak's realm master"

KILLED = """
import os, sys
sys.path.insert(0, "/usr/share/hivematrix-helm")
from helmd.keycloak.admin import api
plain = api._send
def dying(server, method, path, headers, body):
    change = method != "GET" and "/openid-connect/" not in path
    if change and sys.argv[1] == "before":
        os.kill(os.getpid(), 9)
    answer = plain(server, method, path, headers, body)
    if change:
        os.kill(os.getpid(), 9)
    return answer
api._send = dying
from helmd.cli.main import run
run(["keycloak", "setup"])
"""
"""Dies before or after its first request that changes something, between two instructions of the real program."""

BROWSER = r"""
import base64, html, http.client, json, re, sys, urllib.parse
given = json.load(sys.stdin)
cookies = {}
def ask(url, form=None):
    url = url.replace(given["frontend"], "")
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
    headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
    if form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    body = form and urllib.parse.urlencode(form)
    connection.request("POST" if form else "GET", url, body, headers)
    reply = connection.getresponse()
    for name, value in reply.getheaders():
        if name.lower() == "set-cookie":
            key, _, rest = value.partition("=")
            cookies[key] = rest.partition(";")[0]
    return reply.status, reply.getheader("Location", ""), reply.read().decode()
def action(page):
    return html.unescape(re.search(r'action="([^"]+)"', page)[1])
oidc = f"/realms/{given['realm']}/protocol/openid-connect"
query = {"client_id": "core-client", "redirect_uri": given["callback"], "response_type": "code", "scope": "openid"}
status, _, page = ask(f"{oidc}/auth?{urllib.parse.urlencode(query)}")
assert status == 200, (status, page)
assert action(page).startswith(given["frontend"] + "/realms/"), action(page)
status, location, page = ask(action(page), {"username": given["username"], "password": given["password"]})
assert "UPDATE_PASSWORD" in location, (status, location, page)
status, _, page = ask(location)
new = {"password-new": given["new"], "password-confirm": given["new"]}
status, location, page = ask(action(page), new)
while not location.startswith(given["callback"]):
    assert location, page
    status, location, page = ask(location)
code = urllib.parse.parse_qs(urllib.parse.urlsplit(location).query)["code"][0]
grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": given["callback"],
         "client_id": "core-client", "client_secret": given["secret"]}
status, _, answer = ask(f"{oidc}/token", grant)
assert status == 200, answer
part = json.loads(answer)["access_token"].split(".")[1]
print(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode())
"""
"""Logs in as a browser does, changes the password when asked to, and exchanges the code; prints the token's claims."""


PARTS = ("", "/clients", "/groups", "/users", "/roles", "/client-scopes")
READER = """
import http.client, json, sys
given = json.load(sys.stdin)
found = {}
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
for path in given["paths"]:
    connection.request("GET", given["base"] + path, headers={"Authorization": "Bearer " + given["token"]})
    answer = connection.getresponse()
    assert answer.status == 200, (path, answer.status)
    found[path] = json.load(answer)
print(json.dumps(found))
"""
"""Prints several documents of the realm in one."""


@dataclass
class World:
    """The sandbox, an admin of the realm master that set-up knows nothing of, and what set-up has said."""

    box: Sandbox
    keeper: Admin
    said: list[Done] = field(default_factory=list)

    def setup(self, *words: str, **how: Any) -> Done:
        return self.box.helmctl("keycloak", "setup", *words, **how)

    def status(self) -> Done:
        return self.box.helmctl("keycloak", "status", check=False)

    def realm(self, path: str = "") -> Any:
        found = self.keeper("GET", f"/{REALM}{path}")
        assert found.code == 200, found
        return found.json()

    def change(self, method: str, path: str, body: object = None) -> None:
        done = self.keeper(method, f"/{REALM}{path}", body)
        assert 200 <= done.code < 300, done

    def client(self, name: str) -> Any:
        return self.realm(f"/clients?clientId={name}")[0]

    def everything(self) -> dict[str, Any]:
        """What the realm consists of, by place: settings, clients with their secrets and mappers, groups, users."""
        given = {"token": self.keeper.token(), "base": f"/admin/realms/{REALM}", "paths": PARTS}
        return dict(ordered(json.loads(self.box("python3", "-c", READER, stdin=json.dumps(given)).out)))

    def remove_realm(self) -> None:
        self.keeper("DELETE", f"/{REALM}")
        self.box("rm", "-f", OWN_SECRET)


def ordered(value: Any, place: str = "") -> Any:
    """VALUE with its lists in one order, as text by place: Keycloak returns lists of URIs and mappers in any order."""
    if isinstance(value, dict):
        return {key: each for name in value for key, each in ordered(value[name], f"{place}.{name}").items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        named = {str(each.get("clientId") or each.get("username") or each.get("name")): each for each in value}
        assert len(named) == len(value), place
        return ordered(named, place)
    return {place: sorted(map(str, value)) if isinstance(value, list) else value}


def make_admin(admin: Admin, name: str, password: str) -> None:
    """An admin of the realm master."""
    person = {"username": name, "enabled": True, "credentials": [{"type": "password", "value": password}]}
    assert admin("POST", "/master/users", person).code == 201
    user = admin("GET", f"/master/users?exact=true&username={name}").json()[0]["id"]
    role = admin("GET", "/master/roles/admin").json()
    assert admin("POST", f"/master/users/{user}/role-mappings/realm", [role]).code == 204


@pytest.fixture(scope="module")
def world(demo: Sandbox) -> Iterator[World]:
    first = bootstrap_admin(demo)
    kept = {path: demo("cat", path).out for path in (SECRETS, CORE)}
    keeper = Admin(demo, f"keeper-{secrets.token_hex(4)}", secrets.token_urlsafe(12))
    make_admin(Admin(demo), keeper.name, keeper.password)
    demo.write(CHOICE, f'[services.keycloak]\nrealm = "{REALM}"\n')
    demo.helmctl("apply")
    made = World(demo, keeper)
    try:
        yield made
    finally:
        demo.helmctl("start", "keycloak", check=False)
        made.remove_realm()
        if not keeper("GET", f"/master/users?exact=true&username={first[0]}").json():
            make_admin(keeper, *first)
        for path, text in kept.items():
            demo.write(path, text)
        demo("rm", "-f", CHOICE)
        demo.helmctl("apply")
        user = Admin(demo)("GET", f"/master/users?exact=true&username={keeper.name}").json()[0]["id"]
        assert Admin(demo)("DELETE", f"/master/users/{user}").code == 204


@pytest.fixture(scope="module")
def ready(world: World) -> World:
    """A realm made by set-ups that were killed after each change they made, and before some, and a last one."""
    before = world.status()
    assert (before.code, before.err) == (1, "error: Keycloak's realm is not set up\nRun: helmctl keycloak setup\n")
    for turn in range(60):
        done = world.box("python3", "-c", KILLED, ("after", "after", "before")[turn % 3], check=False)
        world.said.append(done)
        if not done.code:
            break
    else:
        pytest.fail(f"not finished after {len(world.said)} runs: {world.said[-1].text}")
    return world


def first_password(world: World) -> str:
    (line,) = [line for done in world.said for line in done.out.splitlines() if line.startswith(SAID)]
    return line.removeprefix(SAID)


def test_killed_after_each_change_it_is_finished_by_the_next_run(ready: World) -> None:
    assert len(ready.said) > 12, "each run made one change at most, but the last"
    assert all("Traceback" not in done.text for done in ready.said)
    assert ready.status().code == 0, ready.status()
    box = ready.box
    assert sorted(group["name"] for group in ready.realm("/groups")) == ["admins", "billing", "client", "technicians"]
    assert ready.client("core-client")["redirectUris"] == [f"{GATEWAY}/keycloak-callback"]
    assert ready.client("helm")["publicClient"] is True
    assert [user["username"] for user in ready.realm("/users")] == ["admin"]
    assert first_password(ready)
    missing = box("ls", f"{CONFIG}/secrets/first-admin.password", check=False)
    assert missing.code, "the password is stored nowhere"


def test_nothing_is_left_of_the_temporary_admin(ready: World) -> None:
    assert "BOOTSTRAP" not in ready.box("cat", SECRETS).out
    assert not ready.keeper("GET", "/master/users?exact=true&username=admin").json()
    # A later set-up of the suite does not bring it back.
    ready.box.helmctl("setup", timeout=300)
    assert "BOOTSTRAP" not in ready.box("cat", SECRETS).out
    assert ready.status().code == 0


def test_secrets_are_private(ready: World) -> None:
    box = ready.box
    modes = box("stat", "-c", "%a", OWN_SECRET, SECRETS, CORE).out.split()
    assert modes == ["600"] * 3
    own, core = box("cat", OWN_SECRET).out.strip(), ready.client("core-client")["secret"]
    assert f"KEYCLOAK_CLIENT_SECRET={core}" in box("cat", CORE).out
    assert "FLASK_APP=run.py" in box("cat", CORE).out
    assert "KEYCLOAK_CLIENT_SECRET" not in box("cat", "/home/hive/suite/nexus/.flaskenv").out, "it has another client"
    assert not any(own in done.text or core in done.text for done in ready.said)
    places = "~/.local/share/systemd ~/.config/hivematrix/*.toml ~/.config/hivematrix/services.d"
    for secret in (own, core, first_password(ready)):
        assert box.shell(f"grep -rlF -f - {places}", stdin=secret, check=False).out == ""
    assert set(ready.box("ls", "-A", f"{CONFIG}/secrets").out.split()) >= {"helm-admin.secret", "keycloak.env"}


def test_own_client_may_administer_this_realm_alone(ready: World) -> None:
    own = ready.box("cat", OWN_SECRET).out.strip()
    form = {"grant_type": "client_credentials", "client_id": "helm-admin", "client_secret": own}
    token = ask(ready.box, f"{KEYCLOAK}/realms/{REALM}/protocol/openid-connect/token", "POST", form).json()
    bearer = f"Authorization: Bearer {token['access_token']}"
    for path, code in ((f"/{REALM}/users", 200), ("/master", 403), ("/master/users", 403)):
        assert ask(ready.box, f"{KEYCLOAK}/admin/realms{path}", headers=(bearer,)).code == code
    user = ready.realm(f"/clients/{ready.client('helm-admin')['id']}/service-account-user")["id"]
    held = ready.realm(f"/users/{user}/role-mappings")["clientMappings"]["realm-management"]["mappings"]
    assert sorted(role["name"] for role in held) == ["manage-clients", "manage-realm", "manage-users"]


def test_links_do_not_follow_the_host_header(ready: World) -> None:
    url = f"{KEYCLOAK}/realms/{REALM}/.well-known/openid-configuration"
    for headers in ((), ("Host: evil.example",), ("X-Forwarded-Host: evil.example",)):
        assert ask(ready.box, url, headers=headers).json()["issuer"] == f"{FRONTEND}/realms/{REALM}"


def test_the_first_admin_must_change_the_password_and_is_an_admin(ready: World) -> None:
    box, password = ready.box, first_password(ready)
    url = f"{KEYCLOAK}/realms/{REALM}/protocol/openid-connect/token"
    form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
    assert ask(box, url, "POST", form).json()["error_description"] == "Invalid user credentials"
    refused = ask(box, url, "POST", {**form, "password": password}).json()
    assert refused["error_description"] == "Account is not fully set up"
    given = {
        "frontend": FRONTEND,
        "realm": REALM,
        "callback": f"{GATEWAY}/keycloak-callback",
        "username": "admin",
        "password": password,
        "new": secrets.token_urlsafe(12),
        "secret": ready.client("core-client")["secret"],
    }
    claims = json.loads(box("python3", "-c", BROWSER, stdin=json.dumps(given)).out)
    assert claims["groups"] == ["admins"] and claims["preferred_username"] == "admin"
    assert claims["iss"] == f"{FRONTEND}/realms/{REALM}"
    assert ask(box, url, "POST", {**form, "password": given["new"]}).code == 200


def test_a_second_run_changes_nothing(ready: World) -> None:
    before, files = ready.everything(), ready.box.shell(f"sha256sum {CONFIG}/secrets/* {CORE}").out
    again = ready.setup()
    assert (again.out, again.err) == ("", "Keycloak is set up.\n")
    assert ready.everything() == before
    assert ready.box.shell(f"sha256sum {CONFIG}/secrets/* {CORE}").out == files


REALM_DRIFT: dict[str, tuple[object, str]] = {
    "sslRequired": ("none", "is none, must be external"),
    "registrationAllowed": (True, "is true, must be false"),
    "editUsernameAllowed": (True, "is true, must be false"),
    "bruteForceProtected": (False, "is false, must be true"),
    "permanentLockout": (True, "is true, must be false"),
    "failureFactor": (1000, "is 1000, must be 10"),
    "maxFailureWaitSeconds": (1, "is 1, must be 900"),
    "eventsEnabled": (False, "is false, must be true"),
    "eventsExpiration": (60, "is 60, must be 2592000"),
    "adminEventsEnabled": (False, "is false, must be true"),
}
ATTRIBUTE_DRIFT: dict[str, tuple[object, str]] = {
    "adminEventsExpiration": ("60", "is 60, must be 2592000"),
    "frontendUrl": ("http://evil.example", f"is http://evil.example, must be {FRONTEND}"),
}


def test_what_others_changed_is_shown_and_repaired(ready: World) -> None:
    """Each of twelve properties of the realm, and clients, mappers, files."""
    before = ready.everything()
    expected = {f"realm {REALM}: {key} {line}" for key, (_, line) in (REALM_DRIFT | ATTRIBUTE_DRIFT).items()}
    attributes = ready.realm()["attributes"] | {key: value for key, (value, _) in ATTRIBUTE_DRIFT.items()}
    settings = {key: value for key, (value, _) in REALM_DRIFT.items()}
    ready.change("PUT", "", {"realm": REALM, **settings, "attributes": attributes})

    core, helm = ready.client("core-client"), ready.client("helm")
    wrong = {"redirectUris": ["http://evil.example/*"], "directAccessGrantsEnabled": True}
    ready.change("PUT", f"/clients/{core['id']}", {**core, **wrong})
    expected.add(f"client core-client: redirectUris is http://evil.example/*, must be {GATEWAY}/keycloak-callback")
    expected.add("client core-client: directAccessGrantsEnabled is true, must be false")
    ready.change("PUT", f"/clients/{helm['id']}", {**helm, "attributes": {"pkce.code.challenge.method": ""}})
    expected.add("client helm: pkce.code.challenge.method is not set, must be S256")
    mapper = helm["protocolMappers"][0]
    mapper["config"]["claim.name"] = "teams"
    ready.change("PUT", f"/clients/{helm['id']}/protocol-mappers/models/{mapper['id']}", mapper)
    expected.add("mapper groups of client helm: claim.name is teams, must be groups")
    ready.box.shell(f"sed -i s/^KEYCLOAK_CLIENT_SECRET=.*/KEYCLOAK_CLIENT_SECRET=old/ {CORE}; chmod 644 {CORE}")
    expected.add(".flaskenv of core: KEYCLOAK_CLIENT_SECRET is another value, must be the secret of client core-client")
    expected.add(".flaskenv of core: mode is 0644, must be 0600")

    shown = ready.status()
    assert (shown.code, set(shown.out.splitlines())) == (1, expected)
    assert shown.err == f"{len(expected)} differences. To repair: helmctl keycloak setup\n"
    done = ready.setup()
    assert expected - {line for line in expected if ".flaskenv" in line} <= {
        line.removeprefix("• ") for line in done.err.splitlines()
    }
    assert ready.status().code == 0, ready.status()
    assert ready.everything() == before
    assert f"KEYCLOAK_CLIENT_SECRET={core['secret']}" in ready.box("cat", CORE).out


def test_what_others_removed_is_made_again(ready: World) -> None:
    mapper = ready.client("core-client")["protocolMappers"][0]["id"]
    ready.change("DELETE", f"/clients/{ready.client('core-client')['id']}/protocol-mappers/models/{mapper}")
    ready.change("DELETE", f"/clients/{ready.client('helm')['id']}")
    for group in ready.realm("/groups"):
        if group["name"] == "technicians":
            ready.change("DELETE", f"/groups/{group['id']}")
    shown = ready.status()
    expected = {
        "mapper groups of client core-client is missing",
        "client helm is missing",
        "group technicians is missing",
    }
    assert (shown.code, set(shown.out.splitlines())) == (1, expected)
    ready.setup()
    assert ready.status().code == 0, ready.status()


def test_without_rights_it_says_how_to_get_them_back(ready: World) -> None:
    own = ready.client("helm-admin")["id"]
    user = ready.realm(f"/clients/{own}/service-account-user")["id"]
    management = ready.client("realm-management")["id"]
    path = f"/users/{user}/role-mappings/clients/{management}"
    excess, taken = (ready.realm(f"/clients/{management}/roles/{name}") for name in ("impersonation", "manage-clients"))
    ready.change("POST", path, [excess])
    kept = ready.setup(check=False)
    assert (kept.code, ready.status().code) == (1, 1)
    assert kept.err.endswith(
        "error: client helm-admin: roles is impersonation, manage-clients, manage-realm, manage-users, must be"
        f" manage-clients, manage-realm, manage-users; it can't change that itself\n{BY_ADMIN}\n"
        "Without such an admin, see LOST ACCESS TO KEYCLOAK in helmctl(1).\n"
    ), kept.err
    ready.change("DELETE", path, [taken])
    for done in (ready.status(), ready.setup(check=False)):
        assert done.code == 1
        assert done.err.startswith(f"error: client helm-admin of realm {REALM} "), done.err
        needed = "its service account needs the roles manage-clients, manage-realm, manage-users of realm-management"
        assert f"; {needed}\n{BY_ADMIN}\n" in done.err, done.err
    by_admin = ("--login", ready.keeper.name)
    ready.setup(*by_admin, stdin=f"{ready.keeper.password}\n")
    assert ready.status().code == 0, ready.status()

    ready.change("DELETE", f"/clients/{own}")
    gone = ready.status()
    assert gone.code == 1 and f"refused the login of client helm-admin of realm {REALM}" in gone.err, gone.err
    assert "the client was deleted or changed" in gone.err and BY_ADMIN in gone.err
    refused = ready.setup(*by_admin, stdin="wrong\n", check=False)
    assert (refused.code, refused.err) == (
        1,
        f"error: Keycloak refused the login of user {ready.keeper.name} of realm master: Invalid user credentials"
        " (401)\n"
        "Give the name and password of another one.\n",
    )
    ready.change("PUT", "", {"realm": REALM, "enabled": False})
    ready.setup(*by_admin, stdin=f"{ready.keeper.password}\n")
    assert ready.status().code == 0, ready.status()


def test_an_adopted_realm_keeps_what_is_its_own(ready: World) -> None:
    """Its users with their passwords, its groups, clients and settings; the client for Core keeps its secret."""
    keeper, password = ready.keeper, secrets.token_urlsafe(12)
    ready.remove_realm()
    own = {
        "realm": REALM,
        "enabled": True,
        "displayName": "Ours",
        "accessTokenLifespan": 77,
        "passwordPolicy": "length(10)",
        "smtpServer": {"host": "mail.example", "from": "it@example.org"},
        "attributes": {"ours": "kept", "frontendUrl": "http://localhost:8000/keycloak"},
    }
    assert keeper("POST", "", own).code == 201
    for group in ("staff", "admins"):
        ready.change("POST", "/groups", {"name": group, "attributes": {"floor": ["2"]}})
    ready.change("POST", "/clients", {"clientId": "wiki", "redirectUris": ["https://wiki.example/*"]})
    ready.change(
        "POST", "/clients", {"clientId": "core-client", "secret": "theirs", "name": "Core", "publicClient": False}
    )
    name = {"username": "grace", "email": "grace@example.org", "firstName": "Grace", "lastName": "Hopper"}
    person = {**name, "enabled": True, "groups": ["admins", "staff"]}
    ready.change("POST", "/users", {**person, "credentials": [{"type": "password", "value": password}]})
    before = ready.everything()

    done = ready.setup("--login", keeper.name, stdin=f"{keeper.password}\n")
    assert f"realm {REALM}: frontendUrl is http://localhost:8000/keycloak, must be {FRONTEND}" in done.err
    assert done.out == "", "there is an admin already"
    assert ready.status().code == 0, ready.status()
    after = ready.everything()
    ours = (*(f"..{key}" for key in REALM_DRIFT), "..attributes.frontendUrl", "./clients.core-client.")
    assert {key: after.get(key) for key in before if not key.startswith(ours)} == {
        key: value for key, value in before.items() if not key.startswith(ours)
    }
    more = [key for key in after if key not in before and not key.startswith(ours)]
    made = ("./clients.helm", "./clients.helm-admin", "./groups.", "..attributes.adminEventsExpiration")
    assert all(key.startswith(made) for key in more), more
    core = ready.client("core-client")
    assert (core["secret"], core["name"]) == ("theirs", "Core")
    assert "KEYCLOAK_CLIENT_SECRET=theirs" in ready.box("cat", CORE).out
    form = {"grant_type": "password", "client_id": "admin-cli", "username": "grace", "password": password}
    assert ask(ready.box, f"{KEYCLOAK}/realms/{REALM}/protocol/openid-connect/token", "POST", form).code == 200


def test_a_stopped_keycloak_is_named_and_started(ready: World) -> None:
    """Also where there is no realm yet, which its health check waits for."""
    ready.remove_realm()
    ready.box.helmctl("stop", "keycloak")
    stopped = ready.status()
    assert (stopped.code, stopped.err) == (1, "error: keycloak is not running\nStart it: helmctl start keycloak\n")
    done = ready.setup("--login", ready.keeper.name, stdin=f"{ready.keeper.password}\n", timeout=300)
    assert done.err.startswith("• starting keycloak\n"), done.err
    assert ready.status().code == 0
    ready.box.helmctl("wait", "--for", "healthy", "keycloak", timeout=120)
