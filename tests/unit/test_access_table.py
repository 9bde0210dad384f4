"""Every route for every kind of caller, over HTTP, against the route table; and tokens that nobody may use."""

import base64
import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from helmd.health.listeners import holder_of
from helmd.model.config.settings import read_settings_files
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.identity.audit import AuditedChange
from helmd.model.identity.machine_token import new_token_of
from helmd.model.identity.peer import Peer, Place
from helmd.model.identity.realm import PROBE_USER
from helmd.model.layout import layout
from helmd.model.suite.service import Registry, Service
from helmd.operations.identity.tokens import TokenStore
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Identity, Role
from helmd.web.http.problems import json_response
from helmd.web.route import Route
from helmd.web.server import HttpServer, application
from tests.unit.core_stand_in import KID, SERVICE, USER, StandIn, jwk, private_key, signed, standing_in
from tests.unit.test_api_document import table

SETTINGS = 'http.trusted_proxies = ["192.0.2.7"]\ningest.anonymous = "no"'
ROLES = ("client", "billing", "technician", "admin")
SESSION = Peer(Place.HERE, "127.0.0.1", "session-3.scope")
CODEX = Peer(Place.HERE, "127.0.0.1", "hivematrix-codex.service", owned=True)
FAR = Peer(Place.ELSEWHERE, "198.51.100.3")
UNKNOWN = Peer(Place.UNKNOWN, "127.0.0.1")


async def answered(request: web.Request) -> web.Response:
    caller: Identity | None = request["identity"]
    return json_response(None if caller is None else caller.name)


ROUTES = [replace(route, handler=answered, reply=None) for route in table()]


def sample(route: Route) -> str:
    """Return a path of ROUTE."""
    return re.sub(r"\{\w+(:[^}]*)?\}", "7", route.path)


class Helmd:
    """helmd's application with all of its routes, whose handlers only answer; PEER sends all requests over TCP."""

    def __init__(self, core: StandIn, tokens: TokenStore, socket: Path) -> None:
        self.core = core
        self.tokens = tokens
        self.socket = socket
        self.peer = SESSION
        self.changes: list[AuditedChange] = []
        self.port = 0

    async def ask(
        self, method: str, path: str, token: str | None = None, *, by_socket: bool = False
    ) -> tuple[int, str]:
        """Return the status of the answer and its error code."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connector = aiohttp.UnixConnector(str(self.socket)) if by_socket else None
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers) as answer:
                body = await answer.json(content_type=None)
                return answer.status, body["code"] if isinstance(body, dict) else ""


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Helmd]:
    places = layout({}, directory, 1000, directory / "share")
    tokens = TokenStore(places)
    async with standing_in() as core, Callers(lambda _: helmd.peer, tokens) as callers:
        helmd = Helmd(core, tokens, directory / "helm.sock")
        settings = read_settings_files([ConfigSource("helm.toml", SETTINGS)])
        callers.adopt(settings, Registry({"core": Service("core", url=core.url)}))
        server = HttpServer(application(ROUTES, callers, helmd.changes.append), helmd.socket, holder_of)
        await server.start("127.0.0.1", 0)
        helmd.port = int(server._listeners[-1].sockets[0].getsockname()[1])
        try:
            yield helmd
        finally:
            await server.stop()


def user(level: str, **claims: Any) -> str:
    given = {"preferred_username": level, "permission_level": level, "jti": level, "exp": int(time.time()) + 3600}
    return signed({**USER, **given, **claims})


def service(**claims: Any) -> str:
    return signed({**SERVICE, "exp": int(time.time()) + 300, **claims})


def expected(route: Route, role: str, peer: Peer, via: str) -> tuple[int, str]:
    """Return what the table says about a user or program with this ROLE. Written out here, apart from the code."""
    if route.role is Role.PUBLIC:
        return 200, ""
    suspect = peer in (CODEX, UNKNOWN)
    if (via == "machine" and suspect) or (route.checked and (suspect or (peer == FAR and via == "token"))):
        refused = (403, "peer_refused")
    elif route.recent_login:
        refused = (403, "login_needed")
    else:
        refused = (200, "")
    covered = ROLES.index(role) >= ROLES.index(str(route.role))
    return refused if covered else (403, "denied")


@pytest.mark.parametrize("peer", [SESSION, CODEX, FAR, UNKNOWN], ids=["session", "service", "other host", "unknown"])
async def test_every_route_for_every_caller_is_as_the_table_says(tmp_path: Path, peer: Peer) -> None:
    async with serving(tmp_path) as helmd:
        helmd.peer = peer
        machines = {role: helmd.tokens.create(new_token_of(role, role), "test")[1] for role in ROLES}
        for route in ROUTES:
            path = sample(route)
            public = route.role is Role.PUBLIC
            found = {"nobody": await helmd.ask(route.method, path)}
            wanted = {"nobody": (200, "") if public else (401, "no_credential")}
            found["service"] = await helmd.ask(route.method, path, service())
            wanted["service"] = (200, "") if public or route.services else (403, "denied")
            found["socket"], wanted["socket"] = await helmd.ask(route.method, path, by_socket=True), (200, "")
            for role in ROLES:
                found[role] = await helmd.ask(route.method, path, user(role))
                wanted[role] = expected(route, role, peer, "token")
                found[f"machine {role}"] = await helmd.ask(route.method, path, machines[role])
                wanted[f"machine {role}"] = expected(route, role, peer, "machine")
            assert found == wanted, f"{route.method} {route.path}"


def test_the_table_has_every_kind_of_route() -> None:
    assert any(route.recent_login for route in ROUTES) and any(route.services for route in ROUTES)
    assert {route.role for route in ROUTES} == set(Role)


async def test_every_change_is_recorded_and_every_refusal_of_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as helmd:
        _, secret = helmd.tokens.create(new_token_of("ci", "admin"), "test")
        id = helmd.tokens.tokens()[0].id
        cases = (
            (SESSION, None, "unknown", "refused", "no_credential", ""),
            (SESSION, user("client"), "client", "refused", "denied", "token"),
            (CODEX, user("admin"), "admin", "refused", "peer_refused", "token"),
            (FAR, secret, "machine:ci", "refused", "login_needed", "machine"),
        )
        for peer, token, who, result, code, via in cases:
            helmd.peer = peer
            assert (await helmd.ask("DELETE", "/helm/api/tokens/7", token))[1] == code
            change = helmd.changes.pop()
            assert (change.action, change.actor, change.result) == ("DELETE /api/tokens/{id}", who, result)
            assert change.detail.startswith(f"{code}: ")
            assert change.origin.via == via
            assert change.origin.unit == {SESSION: "session-3.scope", CODEX: "hivematrix-codex.service"}.get(
                peer, "elsewhere"
            )
            assert change.origin.address == peer.address
        assert helmd.changes == []
        assert await helmd.ask("DELETE", "/api/tokens/7", by_socket=True) == (200, "")
        change = helmd.changes.pop()
        assert (change.result, change.origin.via) == ("done", "socket")
        helmd.peer = FAR
        await helmd.ask("DELETE", "/api/tokens/7", secret)
        assert helmd.changes.pop().origin.session == id
        for route in ROUTES:
            if route.method == "GET" or route.services:
                await helmd.ask(route.method, sample(route), user("client"))
        assert helmd.changes == [], "what only reads, and ingest, are not recorded"


async def test_refusals_beyond_a_limit_are_counted_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as helmd:
        async with aiohttp.ClientSession() as session:
            for _ in range(150):
                async with session.post(f"http://127.0.0.1:{helmd.port}/api/tokens") as answer:
                    assert answer.status == 401
        assert 100 <= len(helmd.changes) < 150
        left_out = 150 - len(helmd.changes)
        assert await helmd.ask("POST", "/api/tokens", by_socket=True) == (200, "")
        counts = [re.search(r"(\d+) more before this one are not recorded", each.detail) for each in helmd.changes]
        assert sum(int(count[1]) for count in counts if count) == left_out


async def test_the_account_that_looks_at_pages_gets_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as helmd:
        token = signed(claims(preferred_username=PROBE_USER))
        for route in ROUTES:
            if route.role is not Role.PUBLIC:
                assert await helmd.ask(route.method, sample(route), token) == (403, "denied"), route.path


async def test_a_confined_token_gets_to_its_services_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as helmd:
        _, secret = helmd.tokens.create(new_token_of("ci", "admin", ["codex"]), "test")
        for route in ROUTES:
            if route.recent_login:
                continue
            open_to_all = route.role in (Role.PUBLIC, Role.CLIENT) or route.confined or route.services
            named = "{name}" in route.path
            wanted = (200, "") if open_to_all or named else (403, "denied")
            path = sample(replace(route, path=route.path.replace("{name}", "codex")))
            assert await helmd.ask(route.method, path, secret) == wanted, route.path
            if named and not open_to_all:
                other = sample(replace(route, path=route.path.replace("{name}", "core")))
                assert await helmd.ask(route.method, other, secret) == (403, "denied"), route.path


async def test_a_machine_token_works_without_core_and_ends_when_revoked(tmp_path: Path) -> None:
    async with serving(tmp_path) as helmd:
        helmd.core.down = True
        _, secret = helmd.tokens.create(new_token_of("ci", "technician"), "test")
        assert await helmd.ask("GET", "/api/logs", secret) == (200, "")
        TokenStore(layout({}, tmp_path, 1000, tmp_path / "share")).revoke("ci")
        assert await helmd.ask("GET", "/api/logs", secret) == (401, "bad_token")


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def raw(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"x") -> str:
    return ".".join(map(encoded, (json.dumps(header).encode(), json.dumps(claims).encode(), signature)))


def claims(**given: Any) -> dict[str, Any]:
    """Of an admin whose token is good; None takes a claim away."""
    made = {**USER, "permission_level": "admin", "jti": "s", "exp": int(time.time()) + 3600, **given}
    return {name: value for name, value in made.items() if value is not None}


def of_service(**given: Any) -> dict[str, Any]:
    made = {**SERVICE, "exp": int(time.time()) + 300, **given}
    return {name: value for name, value in made.items() if value is not None}


def with_public_key(encoding: serialization.Encoding) -> str:
    """HS256 with what everybody can fetch as its secret."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    secret = private_key().public_key().public_bytes(encoding, kind)
    signing = raw({"alg": "HS256", "typ": "JWT", "kid": KID}, claims()).rpartition(".")[0]
    return f"{signing}.{encoded(hmac.new(secret, signing.encode(), hashlib.sha256).digest())}"


def own_key(**header: Any) -> str:
    """Signed with a key of the sender's, which it names in the header."""
    return signed(claims(), private_key("another"), **header)


BAD = (401, "bad_token")
BAD_TOKENS: dict[str, Callable[[], str]] = {
    "text": lambda: "anything-at-all",
    "one part": lambda: encoded(b'{"alg":"RS256"}'),
    "two parts": lambda: signed(claims()).rpartition(".")[0],
    "four parts": lambda: signed(claims()) + ".AAAA",
    "no signature": lambda: signed(claims()).rpartition(".")[0] + ".",
    "another signature": lambda: signed(claims())[:-8] + "AAAAAAAA",
    "changed claims": lambda: ".".join(
        (signed(claims()).split(".")[0], encoded(json.dumps(claims(sub="x")).encode()), signed(claims()).split(".")[2])
    ),
    "header that is not JSON": lambda: encoded(b"alg") + "." + ".".join(signed(claims()).split(".")[1:]),
    "header that is a list": lambda: encoded(b"[]") + "." + ".".join(signed(claims()).split(".")[1:]),
    "header nested deeply": lambda: encoded(b"[" * 5000) + ".e30.AAAA",
    "alg none": lambda: raw({"alg": "none", "kid": KID}, claims()),
    "alg None": lambda: raw({"alg": "None", "kid": KID}, claims()),
    "alg none without signature": lambda: raw({"alg": "none", "kid": KID}, claims()).rpartition(".")[0] + ".",
    "no alg": lambda: raw({"kid": KID}, claims()),
    "alg list": lambda: raw({"alg": ["RS256"], "kid": KID}, claims()),
    "alg HS256 with the public key as PEM": lambda: with_public_key(serialization.Encoding.PEM),
    "alg HS256 with the public key as DER": lambda: with_public_key(serialization.Encoding.DER),
    "alg RS512": lambda: signed(claims(), algorithm="RS512"),
    "alg PS256": lambda: signed(claims(), algorithm="PS256"),
    "no kid": lambda: signed(claims(), kid=None),
    "empty kid": lambda: signed(claims(), kid=""),
    "kid a path": lambda: own_key(kid="../../../../dev/null"),
    "kid SQL": lambda: own_key(kid="x' UNION SELECT 'key'; --"),
    "kid unknown": lambda: own_key(kid="another"),
    "kid known, key another": lambda: own_key(),
    "own jwk in the header": lambda: own_key(jwk=jwk(private_key("another"))),
    "own jku in the header": lambda: own_key(jku="http://127.0.0.1:9/keys", kid="another"),
    "own x5u in the header": lambda: own_key(x5u="http://127.0.0.1:9/cert"),
    "crit": lambda: signed(claims(), crit=["exp"]),
    "b64 false": lambda: signed(claims(), b64=False),
    "wrong issuer": lambda: signed(claims(iss="https://keycloak.example/realms/hivematrix")),
    "no issuer": lambda: signed(claims(iss=None)),
    "issuer list": lambda: signed(claims(iss=["hivematrix-core"])),
    "audience": lambda: signed(claims(aud="codex")),
    "expired": lambda: signed(claims(exp=int(time.time()) - 10)),
    "expired long ago": lambda: signed(claims(exp=1)),
    "no expiry": lambda: signed(claims(exp=None)),
    "expiry text": lambda: signed(claims(exp="tomorrow")),
    "expiry huge": lambda: signed(claims(exp=10**400)),
    "expiry negative": lambda: signed(claims(exp=-1)),
    "not yet": lambda: signed(claims(nbf=int(time.time()) + 600)),
    "nbf text": lambda: signed(claims(nbf="x")),
    "no subject": lambda: signed(claims(sub=None)),
    "subject number": lambda: signed(claims(sub=7)),
    "no session": lambda: signed(claims(jti=None)),
    "session number": lambda: signed(claims(jti=7)),
    "another type": lambda: signed(claims(type="refresh")),
    "user as a service": lambda: signed(claims(sub="service:codex")),
    "service for another service": lambda: signed(of_service(target_service="ledger")),
    "service for no service": lambda: signed(of_service(target_service=None)),
    "service that names another": lambda: signed(of_service(calling_service="ledger")),
    "service without type": lambda: signed(of_service(type=None)),
    "service with a bad name": lambda: signed(of_service(sub="service:../x", calling_service="../x")),
    "service that expired": lambda: signed(of_service(exp=int(time.time()) - 10)),
    "claims a list": lambda: ".".join((signed(claims()).split(".")[0], encoded(b"[]"), "AAAA")),
    "longer than 16 KiB once read": lambda: "a" * 8000 + "." + "b" * 100 + ".c",
    "machine token, unknown": lambda: "helm_" + "A" * 43,
    "machine token, empty": lambda: "helm_",
    "machine token, cut": lambda: "helm_" + "A" * 42,
    "machine token, longer": lambda: "helm_" + "A" * 44,
    "machine token, other characters": lambda: "helm_" + "." * 43,
}
assert len(BAD_TOKENS) >= 40


@pytest.fixture(scope="module")
def bad_tokens() -> dict[str, str]:
    return {name: make() for name, make in BAD_TOKENS.items()}


async def test_tokens_that_are_refused_and_never_logged(
    tmp_path: Path, bad_tokens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(tmp_path) as helmd:
        helmd.core.revoked.add("revoked")
        bad_tokens["session that was revoked"] = signed(claims(jti="revoked"))
        found = {}
        for name, token in bad_tokens.items():
            found[name] = [
                await helmd.ask("GET", "/api/services/status", token),
                await helmd.ask("POST", "/api/logs/ingest", token),
                await helmd.ask("POST", "/api/tokens", token),
            ]
        assert found == {name: [BAD, BAD, BAD] for name in bad_tokens}
        recorded = [f"{change}" for change in helmd.changes]
    written = caplog.text + "".join(recorded)
    # A part of each of these is in none of them: what follows is long enough not to be there by chance.
    for name, token in bad_tokens.items():
        for part in token.split("."):
            if len(part) > 20:
                assert part[-20:] not in written, name


async def test_a_token_over_the_limit_of_a_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as helmd:
        assert await helmd.ask("GET", "/api/services/status", "a" * 20_000) == (431, "headers_too_large")


async def test_two_credentials_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as helmd, aiohttp.ClientSession() as session:
        headers = [("Authorization", f"Bearer {user(role)}") for role in ("client", "admin")]
        async with session.get(f"http://127.0.0.1:{helmd.port}/api/services/status", headers=headers) as answer:
            assert answer.status == 400
