"""The realm that the suite needs, and how one that is there differs from it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from helmd.files.environment_file import read_environment_file, remove_variables
from helmd.health.control_group import own_control_group
from helmd.health.listeners import Holder
from helmd.keycloak.admin import api
from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError, KeycloakError, NotSetUpError, PortTakenError, UsageError
from helmd.model.identity.differences import (
    Difference,
    FoundClient,
    FoundRealm,
    client_body,
    differences,
    mapper_body,
    new_client_body,
    realm_body,
)
from helmd.model.identity.realm import GROUPS, GROUPS_MAPPER, WantedRealm, frontend_url, wanted_realm
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.identity.server import keycloak_unit, running_server
from helmd.systemd.bus import Manager
from tests.catalogue import SUITE, suite
from tests.waiting import WITHIN

TOP = Path(__file__).resolve().parents[2]


def realm(text: str = SUITE, settings: Settings | None = None) -> WantedRealm:
    registry = suite(text)
    return wanted_realm(registry["keycloak"], registry, settings or Settings())


def as_keycloak_has_it(wanted: WantedRealm) -> FoundRealm:
    """Return the realm after a set-up, with what Keycloak adds."""
    clients = {
        client.client_id: FoundClient(
            {
                **new_client_body(client),
                "id": f"id of {client.client_id}",
                "webOrigins": [],
                "attributes": {**new_client_body(client)["attributes"], "realm_client": "false"},  # type: ignore[dict-item]
                "protocolMappers": [{**mapper_body(each, None), "id": "m1"} for each in client.mappers],
            },
            frozenset(client.roles),
        )
        for client in wanted.clients
    }
    settings = {"realm": wanted.name, **wanted.settings, "displayName": "Ours"}
    return FoundRealm(
        {**settings, "attributes": {**wanted.attributes, "theirs": "kept"}}, clients, frozenset({*GROUPS, "staff"})
    )


def test_browsers_reach_keycloak_through_the_gateway_or_by_its_own_url() -> None:
    registry = suite()
    assert frontend_url(registry["keycloak"], registry) == "https://localhost/keycloak"
    alone = suite('[services.keycloak]\nenvironment = { KC_HTTP_RELATIVE_PATH = "/auth" }\n')
    assert frontend_url(alone["keycloak"], alone) == "http://localhost:8080/auth"
    assert keycloak_unit(alone).server == api.Server("127.0.0.1", 8080, "/auth")
    given = suite(f'{SUITE}[services.keycloak.environment]\nKC_HOSTNAME = "https://login.example/sso/"\n')
    assert frontend_url(given["keycloak"], given) == "https://login.example/sso"
    alike = suite(f'{SUITE}[services.keycloak.environment]\nKC_HOSTNAME = "https://Login.example:443/sso"\n')
    assert frontend_url(alike["keycloak"], alike) == "https://login.example/sso"
    everywhere = suite('[services.keycloak]\nenvironment = { KC_HTTP_HOST = "::" }\n')
    assert str(keycloak_unit(everywhere).server) == "[::1]:8080"


def test_clients_have_the_addresses_of_gateway_and_helm() -> None:
    found = realm(f'{SUITE}url = "https://desk.example:443"\n', Settings(url="http://127.0.0.1:5004/"))
    assert found.client("core-client").uris == {
        "redirectUris": ("https://desk.example/keycloak-callback",),
        "post.logout.redirect.uris": ("https://desk.example/*",),
    }
    assert found.client("helm").settings["redirectUris"] == ["http://127.0.0.1:5004/*", "https://desk.example/helm/*"]
    alone = realm("[services.keycloak]\n")
    assert alone.client("core-client").uris["redirectUris"] == ()
    assert differences(alone, as_keycloak_has_it(alone)) == ()


def test_a_realm_as_set_up_has_no_difference_and_needs_no_request() -> None:
    wanted = realm()
    found = as_keycloak_has_it(wanted)
    assert differences(wanted, found) == ()
    assert realm_body(wanted, found) == {}
    assert all(client_body(client, found.clients[client.client_id]) == {} for client in wanted.clients)
    assert differences(wanted, None) == (Difference("realm hivematrix"),)
    assert str(Difference("realm hivematrix")) == "realm hivematrix is missing"


def test_every_setting_of_the_realm_is_compared() -> None:
    wanted = realm()
    found = as_keycloak_has_it(wanted)
    for key in wanted.settings:
        (one,) = differences(wanted, FoundRealm({**found.representation, key: None}, found.clients, found.groups))
        assert (one.subject, one.setting, one.found) == ("realm hivematrix", key, None)
    bare = FoundRealm({"realm": "hivematrix"})
    missing = len(wanted.settings) + len(wanted.attributes) + len(wanted.groups) + len(wanted.clients)
    assert len(differences(wanted, bare)) == missing


def test_changes_keep_what_is_not_helms() -> None:
    """Keycloak removes attributes that a request does not name, once it names any."""
    wanted = realm()
    found = as_keycloak_has_it(wanted)
    attributes = {**found.attributes, "frontendUrl": "http://evil.example"}
    drifted = FoundRealm({**found.representation, "attributes": attributes, "failureFactor": 30})
    assert realm_body(wanted, drifted) == {"realm": "hivematrix", "failureFactor": 10, "attributes": found.attributes}
    mapper = {**mapper_body(GROUPS_MAPPER, None), "id": "m1", "config": {"claim.name": "teams", "theirs": "kept"}}
    config = cast(dict[str, str], mapper_body(GROUPS_MAPPER, mapper)["config"])
    assert config == {**GROUPS_MAPPER.config, "theirs": "kept"}
    helm = found.clients["helm"]
    changed = FoundClient({**helm.representation, "publicClient": False, "attributes": {"theirs": "kept"}})
    body = client_body(wanted.client("helm"), changed)
    assert body == {**helm.representation, "attributes": {"theirs": "kept", **wanted.client("helm").attributes}}
    assert wanted.client("helm").attributes == {
        "pkce.code.challenge.method": "S256",
        "backchannel.logout.url": "http://localhost:5004/helm/login/backchannel-logout",
        "backchannel.logout.session.required": "true",
    }


def test_differences_are_sentences() -> None:
    wanted = realm()
    found = as_keycloak_has_it(wanted)
    core = found.clients["core-client"].representation
    clients = {
        **found.clients,
        "core-client": FoundClient({**core, "redirectUris": [], "protocolMappers": None, "publicClient": True}),
        "helm-admin": FoundClient(
            found.clients["helm-admin"].representation, frozenset({"manage-users", "view-realm"})
        ),
    }
    said = {str(each) for each in differences(wanted, FoundRealm(found.representation, clients, frozenset(GROUPS[1:])))}
    assert said == {
        "group admins is missing",
        "client core-client: redirectUris is empty, must be https://localhost/keycloak-callback",
        "client core-client: publicClient is true, must be false",
        "mapper groups of client core-client is missing",
        "client helm-admin: roles is manage-users, view-realm, "
        "must be manage-clients, manage-realm, manage-users, view-events",
    }


def test_uris_of_the_admin_stay_and_those_for_an_earlier_url_go() -> None:
    """Helm notes which it has put there, in an attribute of the client."""
    before, after = realm(), realm(f'{SUITE}url = "https://desk.example:443"\n')
    found = as_keycloak_has_it(before)
    core = found.clients["core-client"].representation
    theirs = {
        **core,
        "redirectUris": [*core["redirectUris"], "https://wiki.example/*"],
        "attributes": {
            **core["attributes"],
            "post.logout.redirect.uris": "https://localhost/*##https://wiki.example/*",
        },
    }
    changed = FoundRealm(found.representation, {**found.clients, "core-client": FoundClient(theirs)}, found.groups)
    assert differences(before, changed) == ()
    said = {str(each) for each in differences(after, changed) if each.subject == "client core-client"}
    assert (
        "client core-client: redirectUris is https://localhost/keycloak-callback, https://wiki.example/*, must be"
        " https://wiki.example/*, https://desk.example/keycloak-callback"
    ) in said
    body = client_body(after.client("core-client"), FoundClient(theirs))
    assert body["redirectUris"] == ["https://wiki.example/*", "https://desk.example/keycloak-callback"]
    attributes = cast(dict[str, str], body["attributes"])
    assert attributes["post.logout.redirect.uris"] == "https://wiki.example/*##https://desk.example/*"
    assert attributes["realm_client"] == "false"
    assert client_body(after.client("core-client"), FoundClient(body)) == {}
    # Without such a note, as in a realm that is taken over, all that is there is the admin's.
    unknown = FoundClient({**theirs, "attributes": {}})
    assert client_body(after.client("core-client"), unknown)["redirectUris"] == [
        "https://localhost/keycloak-callback",
        "https://wiki.example/*",
        "https://desk.example/keycloak-callback",
    ]


def test_a_suite_without_a_realm_of_its_own_is_refused() -> None:
    with pytest.raises(NotSetUpError, match="has no Keycloak of its own"):
        keycloak_unit(suite("[services.core]\ndepends_on = []\n"))
    with pytest.raises(UsageError, match="realm is set to master"):
        keycloak_unit(suite('[services.keycloak]\nrealm = "master"\n'))


def test_variables_are_removed_and_other_lines_kept(tmp_path: Path) -> None:
    path = tmp_path / "keycloak.env"
    theirs = b"# mine\xff\r\nKC_DB_PASSWORD='x'\n; a\x0bB=1\n"
    path.write_bytes(theirs + b'KC_ONE="1"\n  KC_TWO = 2\nLAST=no newline')
    path.chmod(0o644)
    assert remove_variables(path, ("KC_ONE", "KC_TWO"))
    assert path.read_bytes() == theirs + b"LAST=no newline"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not remove_variables(path, ("KC_ONE", "KC_TWO"))
    assert not remove_variables(tmp_path / "none.env", ("KC_ONE",))
    path.write_text("A=1\nKC_ONE='several\nlines'\n")
    with pytest.raises(ConfigurationError) as refused:
        remove_variables(path, ("KC_ONE",))
    assert "remove KC_ONE from it by hand" in str(refused.value.faults[0])
    assert read_environment_file(path)["KC_ONE"] == "several\nlines"


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[api.Server]:
    """Yield a server with answers that Keycloak does not give on demand."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield api.Server("127.0.0.1", server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def plain(code: int, content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@pytest.mark.parametrize(
    ("code", "content", "said"),
    [
        (200, b"no JSON", "it answered 200"),
        (200, b"[" * 100_000, "it answered 200"),
        (200, b'{"access_token": 5}', "it answered 200"),
        (500, b'{"error": "unknown_error"}', "unknown_error (500)"),
        (401, b'{"error_description": "Invalid\\u001b[2J user"}', r"Invalid\x1b[2J user (401)"),
        (403, b'["x"]', "it answered 403"),
    ],
)
def test_answers_to_a_login_that_are_none(code: int, content: bytes, said: str) -> None:
    with answering(plain(code, content)) as server, pytest.raises(KeycloakError) as refused:
        api.Session(server, api.password_of("ada", "the-password"))
    assert said in refused.value.sentence and "user ada of realm master" in refused.value.sentence
    assert "the-password" not in repr(api.password_of("ada", "the-password")) + refused.value.sentence


def test_an_answer_is_waited_for_and_read_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not ended.wait(0.02):
                handler.wfile.write(b" ")
        except OSError:
            pass

    def silent(handler: BaseHTTPRequestHandler) -> None:
        ended.wait(WITHIN)

    # What is too long is so within the usual time: a machine may stall for longer than the short one.
    for name, value, said in (
        ("_LARGEST", 1, "the answer is too long"),
        ("REQUEST_TIMEOUT", 0.3, r"did not answer within 0\.3 s"),
    ):
        ended.clear()
        monkeypatch.undo()
        monkeypatch.setattr(api, name, value)
        with answering(endless) as server, pytest.raises(KeycloakError, match=said):
            try:
                api.answers(server)
            finally:
                ended.set()
    with answering(silent) as server:
        ended.clear()
        with pytest.raises(KeycloakError, match=r"did not answer within 0\.3 s"):
            try:
                api.answers(server)
            finally:
                ended.set()
    with pytest.raises(KeycloakError, match=r"does not answer on 127\.0\.0\.1:1: "):
        api.answers(api.Server("127.0.0.1", 1))


def test_a_keycloak_that_begins_to_listen_meanwhile_is_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at its sockets and the look at who has the port."""
    facts = UnitFacts("hivematrix-keycloak.service", load_state="loaded", active_state="activating")
    monkeypatch.setattr("helmd.operations.identity.server.holder_of", lambda port: Holder(7, "java", facts.unit, 1000))
    manager = cast(Manager, SimpleNamespace(facts=lambda unit: facts))
    with pytest.raises(KeycloakError, match="keycloak is starting"):
        running_server(keycloak_unit(suite()), manager)


def test_only_the_unit_that_listens_gets_passwords() -> None:
    """Any service of the account can take the port while Keycloak is not listening."""
    asked: list[str] = []

    def note(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        plain(200, b"{}")(handler)

    class Units:
        facts_now = UnitFacts("hivematrix-keycloak.service", load_state="loaded", active_state="activating")

        def facts(self, unit: str) -> UnitFacts:
            assert unit == self.facts_now.unit
            return self.facts_now

    manager = cast(Manager, Units())
    with answering(note) as server:
        keycloak = keycloak_unit(suite(f"[services.keycloak]\nport = {server.port}\n"))
        with pytest.raises(PortTakenError) as refused:
            running_server(keycloak, manager)
        assert "not by keycloak; no password was sent there" in refused.value.sentence
        assert asked == []
        Units.facts_now = UnitFacts(
            "hivematrix-keycloak.service",
            load_state="loaded",
            active_state="active",
            control_group=own_control_group(),
        )
        assert running_server(keycloak, manager) == server
    for state, said in (("inactive", "keycloak is not running"), ("activating", "keycloak is starting")):
        Units.facts_now = UnitFacts("hivematrix-keycloak.service", load_state="loaded", active_state=state)
        with pytest.raises(KeycloakError, match=said):
            running_server(keycloak, manager)
