"""`helmctl keycloak setup`, `status`, `recover-admin` and `upgrade` with the real Keycloak: fresh, killed at each step,
after changes by others.

The demo's realm loses and gets back Helm's client; all else happens in a realm of another name. At the end, the demo
has its own again.
"""

import gzip
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helmd.model.identity.realm import PROBE_USER
from tests.system.booted import CommandResult, Sandbox
from tests.system.keycloak_admin import CONFIG, GATEWAY, KEYCLOAK, OWN_SECRET, SECRETS, Admin, Person, ask, log_in
from tests.system.keycloak_admin import REALM as OF_THE_DEMO

REALM = "acme"
FRONTEND = f"{GATEWAY}/keycloak"
CHOICE = f"{CONFIG}/services.d/zz-realm.toml"
CORE, NEXUS = (f"/home/hive/suite/{name}/.flaskenv" for name in ("core", "nexus"))
CERTIFICATE = "/home/hive/suite/nexus/certs/nexus.crt"
PLACED = "/home/hive/.local/state/hivematrix/flaskenv.json"
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
run(["keycloak", *sys.argv[2:]])
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
    temporary: str
    """The name of Keycloak's temporary admin, which set-up removes."""
    said: list[CommandResult] = field(default_factory=list)

    def setup(self, *words: str, **how: Any) -> CommandResult:
        return self.box.helmctl("keycloak", "setup", *words, **how)

    def status(self) -> CommandResult:
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
        # One that was issued before Keycloak had another URL, or its database of before, is refused.
        self.keeper.forget_token()
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


def temporary_admin(box: Sandbox) -> tuple[str, str]:
    """Name and password of the temporary admin that set-up would use, and remove."""
    known = dict(line.split("=", 1) for line in box("cat", SECRETS).out.splitlines() if "=" in line)
    return known["KC_BOOTSTRAP_ADMIN_USERNAME"].strip('"'), known["KC_BOOTSTRAP_ADMIN_PASSWORD"].strip('"')


@pytest.fixture(scope="module")
def lost(demo: Sandbox) -> CommandResult:
    """The demo, whose Keycloak Helm has no access to any more, after a recover-admin that was killed."""
    own = Admin(demo)
    client = own("GET", f"/{OF_THE_DEMO}/clients?clientId=helm-admin").json()[0]["id"]
    assert own("DELETE", f"/{OF_THE_DEMO}/clients/{client}").code == 204
    assert demo.helmctl("keycloak", "status", check=False).code == 1
    return demo("python3", "-c", KILLED, "before", "recover-admin", check=False, timeout=300)


@pytest.fixture(scope="module")
def world(demo: Sandbox, lost: CommandResult) -> Iterator[World]:
    """With an admin of the realm master of its own, made by the temporary one that recover-admin has left."""
    keeper = Admin(demo, f"keeper-{secrets.token_hex(4)}", secrets.token_urlsafe(12))
    make_admin(Admin(demo, *temporary_admin(demo)), keeper.name, keeper.password)
    recovered = demo.helmctl("keycloak", "recover-admin")
    kept = {path: demo("cat", path).out for path in (SECRETS, OWN_SECRET, CORE, NEXUS, PLACED)}
    bootstrap = f"bootstrap-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    make_admin(keeper, *bootstrap)
    variables = dict(zip(("USERNAME", "PASSWORD"), bootstrap, strict=True))
    lines = "".join(f'KC_BOOTSTRAP_ADMIN_{key}="{value}"\n' for key, value in variables.items())
    demo.write(SECRETS, kept[SECRETS] + lines)
    demo("rm", OWN_SECRET)
    demo.write(CHOICE, f'[services.keycloak]\nrealm = "{REALM}"\n')
    demo.helmctl("apply")
    made = World(demo, keeper, bootstrap[0], [lost, recovered])
    try:
        yield made
    finally:
        demo.helmctl("start", "keycloak", check=False)
        # Tokens name the URL that Keycloak had when it issued them.
        keeper.forget_token()
        made.remove_realm()
        for path, text in kept.items():
            demo.write(path, text)
        demo("chmod", "600", *kept)
        demo("rm", "-f", CHOICE)
        demo.helmctl("apply")
        user = keeper("GET", f"/master/users?exact=true&username={keeper.name}").json()[0]["id"]
        assert keeper("DELETE", f"/master/users/{user}").code == 204
        assert demo.helmctl("keycloak", "status").code == 0


@pytest.fixture(scope="module")
def ready(world: World) -> World:
    """A realm made by set-ups that were killed after each change they made, and before some, and a last one."""
    before = world.status()
    assert (before.code, before.err) == (1, "error: Keycloak's realm is not set up\nRun: helmctl keycloak setup\n")
    world.said.clear()
    for turn in range(60):
        done = world.box("python3", "-c", KILLED, ("after", "after", "before")[turn % 3], "setup", check=False)
        world.said.append(done)
        if not done.code:
            break
    else:
        pytest.fail(f"not finished after {len(world.said)} runs: {world.said[-1].text}")
    return world


def test_whoever_owns_the_machine_can_log_in_again(world: World) -> None:
    """Without a login of any kind: a killed attempt is finished by the next one, which needs no other admin."""
    killed, done = world.said
    assert killed.code == 137, killed
    assert "Helm has not its access to Keycloak" in killed.err and "making a temporary admin" in killed.err
    assert "making a temporary admin" not in done.err, "that of the killed attempt was used"
    assert "removed user helm-recovery-" in done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("admin can log in with the password ")]
    again = Person("admin", line.rpartition(" ")[2])
    assert log_in(world.box, again, "/helm/", new_password=secrets.token_urlsafe(12)).location == "/helm/"
    assert world.keeper("GET", f"/{OF_THE_DEMO}/clients?clientId=helm-admin").json()
    assert not world.keeper("GET", "/master/users?search=helm-recovery").json()
    places = "~/.config ~/.local/share/systemd ~/.local/state/hivematrix/*.json"
    assert world.box.shell(f"grep -rlF -f - {places}", stdin=again.password, check=False).out == ""


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
    users = {user["username"]: user["id"] for user in ready.realm("/users")}
    assert sorted(users) == ["admin", PROBE_USER]
    held = ready.realm(f"/users/{users[PROBE_USER]}/role-mappings")
    assert (held, ready.realm(f"/users/{users[PROBE_USER]}/groups")) == ({}, [])
    assert first_password(ready)
    missing = box("ls", f"{CONFIG}/secrets/first-admin.password", check=False)
    assert missing.code, "the password is stored nowhere"


def test_nothing_is_left_of_the_temporary_admin(ready: World) -> None:
    assert "BOOTSTRAP" not in ready.box("cat", SECRETS).out
    assert not ready.keeper("GET", f"/master/users?exact=true&username={ready.temporary}").json()
    # A later set-up of the suite does not bring it back.
    ready.box.helmctl("setup", timeout=300)
    assert "BOOTSTRAP" not in ready.box("cat", SECRETS).out
    assert ready.status().code == 0


def test_secrets_are_private(ready: World) -> None:
    box = ready.box
    modes = box("stat", "-c", "%a", OWN_SECRET, SECRETS, CORE, NEXUS).out.split()
    assert modes == ["600"] * 4
    own, core = box("cat", OWN_SECRET).out.strip(), ready.client("core-client")["secret"]
    assert f"KEYCLOAK_CLIENT_SECRET={core}" in box("cat", CORE).out
    assert "FLASK_APP=run.py" in box("cat", CORE).out
    assert f"KEYCLOAK_CLIENT_SECRET={core}" in box("cat", NEXUS).out
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
    assert sorted(role["name"] for role in held) == ["manage-clients", "manage-realm", "manage-users", "view-events"]


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
    wrong = {"redirectUris": [], "directAccessGrantsEnabled": True}
    ready.change("PUT", f"/clients/{core['id']}", {**core, **wrong})
    expected.add(f"client core-client: redirectUris is empty, must be {GATEWAY}/keycloak-callback")
    expected.add("client core-client: directAccessGrantsEnabled is true, must be false")
    ready.change("PUT", f"/clients/{helm['id']}", {**helm, "attributes": {"pkce.code.challenge.method": ""}})
    expected.add("client helm: pkce.code.challenge.method is not set, must be S256")
    mapper = helm["protocolMappers"][0]
    mapper["config"]["claim.name"] = "teams"
    ready.change("PUT", f"/clients/{helm['id']}/protocol-mappers/models/{mapper['id']}", mapper)
    expected.add("mapper groups of client helm: claim.name is teams, must be groups")
    prober = ready.realm(f"/users?exact=true&username={PROBE_USER}")[0]
    ready.change("PUT", f"/users/{prober['id']}", {**prober, "enabled": False})
    admins = next(group["id"] for group in ready.realm("/groups") if group["name"] == "admins")
    ready.change("PUT", f"/users/{prober['id']}/groups/{admins}")
    ready.change("POST", f"/users/{prober['id']}/role-mappings/realm", [ready.realm("/roles/offline_access")])
    expected.add(f"user {PROBE_USER}: enabled is false, must be true")
    expected.add(f"user {PROBE_USER}: groups is admins, must be empty")
    expected.add(f"user {PROBE_USER}: roles is offline_access, must be empty")
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
    ready.change("DELETE", f"/users/{ready.realm(f'/users?exact=true&username={PROBE_USER}')[0]['id']}")
    shown = ready.status()
    expected = {
        f"user {PROBE_USER} is missing",
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
        "error: client helm-admin: roles is impersonation, manage-clients, manage-realm, manage-users, view-events,"
        f" must be manage-clients, manage-realm, manage-users, view-events; it can't change that itself\n{BY_ADMIN}\n"
        "Without such an admin, run: helmctl keycloak recover-admin, which restarts Keycloak\n"
    ), kept.err
    ready.change("DELETE", path, [taken])
    for done in (ready.status(), ready.setup(check=False)):
        assert done.code == 1
        assert done.err.startswith(f"error: client helm-admin of realm {REALM} "), done.err
        roles = "manage-clients, manage-realm, manage-users, view-events"
        needed = f"its service account needs the roles {roles} of realm-management"
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
    account = f"./users.{PROBE_USER}."
    made = ("./clients.helm", "./clients.helm-admin", "./groups.", account, "..attributes.adminEventsExpiration")
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


OTHER = "https://desk.example:8443"


def test_another_url_is_drift_until_it_is_set_up_and_the_admins_own_uris_stay(ready: World) -> None:
    """`helmctl setup --url`: Keycloak's links, redirect URIs and the services' settings follow, and nothing else."""
    box = ready.box
    core = ready.client("core-client")
    theirs = "https://wiki.example/*"
    ready.change("PUT", f"/clients/{core['id']}", {**core, "redirectUris": [*core["redirectUris"], theirs]})
    assert ready.status().code == 0, "what an admin adds there is no difference"
    path = f"{CONFIG}/services.toml"
    before = box("cat", path).out
    box.shell(f"cp -p {CERTIFICATE} ~/kept.crt")
    try:
        box.shell(f"sed -i 's#^url = .*#url = \"{OTHER}\"#' {path}")
        shown = ready.status()
        assert shown.code == 1
        assert f"realm {REALM}: frontendUrl is {FRONTEND}, must be {OTHER}/keycloak" in shown.out
        assert f"service keycloak: KC_HOSTNAME is {FRONTEND}, must be {OTHER}/keycloak" in shown.out
        early = ready.setup(check=False)
        assert (early.code, early.err) == (
            1,
            f"error: the unit of keycloak has not got the URL {OTHER}/keycloak yet\nRun: helmctl apply\n",
        )
        box.write(path, before)
        done = box.helmctl("setup", "--url", f"{OTHER}/", timeout=400)
        assert f"• set url of nexus to {OTHER} " in done.err and "• restarting keycloak" in done.err, done.err
        assert ready.status().code == 0, ready.status()
        assert sorted(ready.client("core-client")["redirectUris"]) == [f"{OTHER}/keycloak-callback", theirs]
        assert f"NEXUS_SERVICE_URL={OTHER}" in box("cat", CORE).out
        names = box.shell(f"openssl x509 -in {CERTIFICATE} -noout -ext subjectAltName").out
        assert "DNS:localhost" in names and "DNS:desk.example" in names
        for headers in ((), ("Host: evil.example",), ("X-Forwarded-Host: localhost:8443",)):
            console = ask(box, f"{KEYCLOAK}/admin/", headers=headers).headers["location"]
            assert console.startswith(f"{OTHER}/keycloak/admin/"), console
        again = box.helmctl("setup", "--url", OTHER)
        assert "restarting keycloak" not in again.err and "set url" not in again.err, again.err
        refused = box.helmctl("setup", "--url", f"{OTHER}/desk", check=False)
        assert (refused.code, refused.err.splitlines()[0]) == (2, f"error: {OTHER}/desk has more than a host")
    finally:
        box.write(path, before)
        box.shell(f"mv ~/kept.crt {CERTIFICATE}")
        box.helmctl("apply")
        ready.setup(timeout=300)
    assert ready.status().code == 0, ready.status()


ARCHIVE = Path("/var/cache/hivematrix-sandbox/downloads/keycloak-26.4.0.tar.gz")
"""Where scripts/demo keeps what it has fetched."""
KILLED_LATER = """
import os, sys
sys.path.insert(0, "/usr/share/hivematrix-helm")
from helmd.operations.identity import upgrade
upgrade.await_health = lambda *given: os.kill(os.getpid(), 9)
from helmd.cli.main import run
run(["keycloak", "upgrade", sys.argv[1]])
"""
"""Dies when the new Keycloak is installed and would be started."""
BROKEN = """
mkdir -p broken/keycloak-26.4.1/bin broken/keycloak-26.4.1/lib && cd broken/keycloak-26.4.1
echo "Keycloak - Version 26.4.1" > version.txt; echo no jar > lib/quarkus-run.jar
printf '#!/bin/sh\necho no such build; exit 1\n' > bin/kc.sh; chmod +x bin/kc.sh
tar -czf ../../broken.tar.gz -C .. keycloak-26.4.1; cd; rm -r broken
"""


UPGRADE = "/home/hive/.local/state/hivematrix/keycloak-upgrade.json"


def test_an_upgrade_that_fails_goes_back_and_one_that_works_stays(ready: World, tmp_path: Path) -> None:
    """A newer version that does not start, a truncated archive, and the same version as an archive of its own."""
    box, data = ready.box, "/home/hive/.local/share/hivematrix"
    before, registry = ready.everything(), box("cat", f"{CONFIG}/services.toml").out
    directories = box("ls", data).out
    box.shell(BROKEN)
    failed = box.helmctl("keycloak", "upgrade", "broken.tar.gz", check=False, timeout=400)
    assert failed.code == 1 and "no such build" in failed.err, failed.err
    assert f"Keycloak runs again in {data}/keycloak-26.4.0\n" in failed.err, failed.err
    assert ready.everything() == before
    assert (box("cat", f"{CONFIG}/services.toml").out, box("ls", data).out) == (registry, directories)

    other = tmp_path / "other.tar.gz"
    other.write_bytes(ARCHIVE.read_bytes() + gzip.compress(b""))
    box.script("copy", str(other), "/home/hive/")
    box.shell("head -c 1000000 other.tar.gz > short.tar.gz")
    box.shell(
        f"mkdir -p {data}/keycloak-26.4.0/themes/ours && touch {data}/keycloak-26.4.0/themes/ours/theme.properties"
    )
    short = box.helmctl("keycloak", "upgrade", "short.tar.gz", check=False)
    assert short.code == 1 and box("ls", data).out == directories, short
    assert ready.status().code == 0, "nothing was stopped for it"
    try:
        killed = box("python3", "-c", KILLED_LATER, "other.tar.gz", check=False, timeout=400)
        assert killed.code == 137 and "starting Keycloak in" in killed.err, killed
        for refused in (ready.status(), ready.setup(check=False)):
            assert refused.code == 1 and "an upgrade of Keycloak is not finished" in refused.err, refused
        done = box.helmctl("keycloak", "upgrade", "other.tar.gz", timeout=400)
        assert f"Keycloak runs again in {data}/keycloak-26.4.0\n" in done.err, "it goes back first"
        assert "Keycloak 26.4.0 -> 26.4.0." in done.err
        (home,) = set(box("ls", data).out.split()) - set(directories.split())
        assert f'path = "{home}"' in box("cat", f"{CONFIG}/services.toml").out
        box("test", "-f", f"{data}/{home}/themes/ours/theme.properties")
        assert ready.everything() == before
        assert ready.status().code == 0, ready.status()
        # As if helmctl had been killed when Keycloak was healthy, and what users have changed since then.
        interrupted = {
            "path": "keycloak-26.4.0",
            "text": registry,
            "changed": box("cat", f"{CONFIG}/services.toml").out,
        }
        box.write(UPGRADE, json.dumps(interrupted))
        unused = box.helmctl("keycloak", "upgrade", "other.tar.gz", check=False)
        assert unused.code == 2 and "is in use already" in unused.err, unused
        assert "Keycloak runs since; it is not undone" in unused.err
        assert box("test", "-e", UPGRADE, check=False).code == 1
        assert ready.status().code == 0, "it was not stopped"
    finally:
        back = box.helmctl("keycloak", "upgrade", "26.4.0", timeout=400)
        box.write(f"{CONFIG}/services.toml", registry)
        box.helmctl("apply")
        box.shell(f"rm -rf other.tar.gz short.tar.gz broken.tar.gz {data}/keycloak-26.4.0-*")
        box.shell(f"rm -r {data}/keycloak-26.4.0/themes/ours")
    assert "fetching" not in back.err and ready.everything() == before
