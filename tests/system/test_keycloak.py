"""The real Keycloak: both modes on the same data, a clean stop, a login through the gateway, databases of one's own."""

import base64
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.system import printed_lines
from tests.system.booted import CommandResult, Sandbox
from tests.system.keycloak_admin import REALM, SECRETS, Admin, ask, log_in, person

NEXUS = "https://127.0.0.1:8443"
START = 240.0
"""Seconds that a start of Keycloak may take here, a build of it included; on a quiet machine some 10."""
DATABASES = {"codex": "codex_db", "ledger": "ledger_db"}
"""Names of databases that the catalogue sets."""
WITH_NOTES = ("codex", "ledger", "knowledgetree")


@pytest.fixture
def admin(demo: Sandbox) -> Admin:
    return Admin(demo)


@pytest.fixture
def kept(admin: Admin) -> Iterator[str]:
    """A group made through the admin API; gone at the end, with Keycloak in development mode as it was."""
    name = f"kept-{secrets.token_hex(4)}"
    made = admin("POST", f"/{REALM}/groups", {"name": name, "attributes": {"note": ["Must survive"]}})
    assert made.code == 201, made
    (group,) = admin("GET", f"/{REALM}/groups?exact=true&search={name}").json()
    yield group["id"]
    if admin.box.status("keycloak")["keycloak"]["mode"] != "development":
        admin.box.helmctl("restart", "keycloak", "--mode", "development", timeout=START)
    assert admin("DELETE", f"/{REALM}/groups/{group['id']}").code == 204


def command_line(box: Sandbox) -> list[str]:
    """The arguments of the Keycloak that runs."""
    pid = printed_lines.main_pid(box, "hivematrix-keycloak")
    return box("cat", f"/proc/{pid}/cmdline").out.rstrip("\0").split("\0")


def test_modes_are_real_and_share_the_data(admin: Admin, kept: str) -> None:
    """development, production, a stop and a start in the mode it had, and back: the data is there each time."""
    box = admin.box

    def check(mode: str, words: list[str]) -> None:
        assert command_line(box)[-len(words) :] == words
        shown = box.status("keycloak")["keycloak"]
        assert (shown["mode"], shown["health"]) == (mode, "healthy")
        found = admin("GET", f"/{REALM}/groups/{kept}")
        assert found.code == 200 and found.json()["attributes"] == {"note": ["Must survive"]}, found

    check("development", ["start-dev"])
    took = [box.helmctl("restart", "keycloak", "--mode", "production", timeout=START).seconds]
    check("production", ["start", "--optimized"])

    stopped = box.helmctl("stop", "keycloak")
    wanted = ["ActiveState", "Result", "ExecMainCode", "ExecMainStatus"]
    found = box("systemctl", "--user", "show", f"--property={','.join(wanted)}", "hivematrix-keycloak").out.split()
    # SIGTERM ends Java with 128 + 15, which is an exit (CLD_EXITED, 1) and a clean stop.
    assert set(found) == {"ActiveState=inactive", "Result=success", "ExecMainCode=1", "ExecMainStatus=143"}
    assert "keycloak: stopped" in stopped.err and "failed" not in stopped.err, stopped.err
    assert re.search(r"^note: .* on it\. Nobody can log in meanwhile", stopped.err, re.MULTILINE), stopped.err
    assert "its last run exited with code 143 (a clean exit)" in " ".join(box.helmctl("why", "keycloak").out.split())
    assert box.status("keycloak")["keycloak"]["status"] == "stopped"
    assert box.helmctl("is-failed", "keycloak", check=False).code != 0

    took.append(box.helmctl("start", "keycloak", timeout=START).seconds)
    check("production", ["start", "--optimized"])
    took.append(box.helmctl("restart", "keycloak", "--mode", "development", timeout=START).seconds)
    check("development", ["start-dev"])
    print(f"to production, start, to development: {', '.join(f'{seconds:.1f} s' for seconds in took)}; "
          f"stop {stopped.seconds:.1f} s")  # fmt: skip


def test_login_through_the_gateway(demo: Sandbox) -> None:
    """Keycloak's pages at the gateway, Core's exchange, and Codex through Nexus with the cookie or the token in it."""
    notes = f"{NEXUS}/codex/api/notes"
    with person(demo, "technicians") as ada:
        assert ask(demo, notes).code == 401
        refused = log_in(demo, replace(ada, password="wrong"))
        assert (refused.status, refused.location) == (200, "") and "Invalid username or password" in refused.page

        entered = log_in(demo, ada)
        assert entered.location == "/codex/api/notes", entered
        claims = json.loads(base64.urlsafe_b64decode(entered.token.split(".")[1] + "=="))
        assert (claims["preferred_username"], claims["permission_level"]) == (ada.name, "technician")

        text = f"written by {ada.name}"
        bearer = f"Authorization: Bearer {entered.token}"
        written = ask(demo, notes, "POST", body={"body": text}, headers=(bearer,))
        assert written.code in (200, 201) and written.json()["body"] == text, written
        read = ask(demo, notes, headers=(f"Cookie: {entered.cookie}",))
        assert read.code == 200 and text in read.text, read
        query = f"SELECT author FROM notes WHERE body = '{text}'"
        author = psql(demo, f"'{database_uri(demo, 'codex')}'", query).out.strip()
        assert author and author in read.text

        assert ask(demo, f"{NEXUS}/logout", headers=(f"Cookie: {entered.cookie}",)).code == 200
        revoked = ask(demo, "http://127.0.0.1:5000/api/token/validate", "POST", body={"token": entered.token})
        assert revoked.code == 401, revoked
        assert ask(demo, notes, headers=(f"Cookie: {entered.cookie}",)).code == 401


def psql(box: Sandbox, where: str, query: str = "SELECT current_user || ' in ' || current_database()") -> CommandResult:
    """A query; WHERE are psql's options, which may hold shell."""
    return box.shell(f'psql --no-psqlrc --no-password -Atq {where} -c "$(cat)"', stdin=query, check=False)


def database_uri(box: Sandbox, name: str) -> str:
    """The DSN in the environment of a running service."""
    pid = printed_lines.main_pid(box, f"hivematrix-{name}")
    environment = box("cat", f"/proc/{pid}/environ").out.split("\0")
    (uri,) = (line.partition("=")[2] for line in environment if line.startswith("DATABASE_URL="))
    return uri


@pytest.mark.parametrize("name", WITH_NOTES)
def test_database_of_ones_own(demo: Sandbox, name: str) -> None:
    """``database = true``: a role of the service's name and its database, named by its environment, and no other."""
    uri = database_uri(demo, name)
    own = DATABASES.get(name, name)
    assert psql(demo, f"'{uri}'").out.strip() == f"{name} in {own}"
    assert psql(demo, f"'{uri}'", "SELECT tableowner FROM pg_tables WHERE tablename = 'notes'").out.strip() == name
    rights = "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = current_user"
    assert psql(demo, f"'{uri}'", rights).out.strip() == "f|f|f|f"
    assert f"@/{own}?" in uri
    for other in {*(DATABASES.get(each, each) for each in WITH_NOTES), "keycloak"} - {own}:
        refused = psql(demo, "'" + uri.replace(f"@/{own}?", f"@/{other}?") + "'")
        assert refused.code and "rejects connection" in refused.err, refused


def test_keycloaks_database_takes_its_password_over_tcp_and_nobody_else(demo: Sandbox) -> None:
    tcp = "-h 127.0.0.1 -p 5499"
    right = f'env PGPASSWORD="$(sed -n "s/^KC_DB_PASSWORD=//p" {SECRETS} | tr -d \\")" '
    words = 'psql --no-psqlrc --no-password -Atqc "SELECT current_user" '
    assert demo.shell(f"{right} {words} {tcp} -U keycloak -d keycloak").out.strip() == "keycloak"
    without = psql(demo, f"{tcp} -U keycloak -d keycloak")
    assert without.code and "no password supplied" in without.err, without
    wrong = demo.shell(f"env PGPASSWORD=wrong {words} {tcp} -U keycloak -d keycloak", check=False)
    assert wrong.code and "password authentication failed" in wrong.err, wrong
    for role, database in (
        ("codex", "codex_db"),
        ("keycloak", "codex_db"),
        ("codex", "keycloak"),
        ("postgres", "postgres"),
    ):
        refused = demo.shell(f"{right} {words} {tcp} -U {role} -d {database}", check=False)
        assert refused.code and "pg_hba.conf rejects connection" in refused.err, refused
    assert demo("stat", "-c", "%a", SECRETS).out.strip() == "600"
    assert demo.sql("SHOW listen_addresses") == "", "the log store is reached by its socket alone"
