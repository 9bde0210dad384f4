"""Who gets in over HTTP: tokens, programs on the machine, and what each may use."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from helmd.health.listeners import holder_of
from helmd.model.config.settings import Settings, read_settings_files
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.identity.peer import Peer, Place
from helmd.model.suite.composition import core_url
from helmd.model.suite.service import Registry, Service
from helmd.web.auth.core import VALIDATE_PATH
from helmd.web.auth.identity import Callers, is_loopback
from helmd.web.auth.roles import Access, Identity, Role
from helmd.web.http.problems import json_response
from helmd.web.route import Route
from helmd.web.server import HttpServer, application
from tests.free_ports import free_port
from tests.unit.core_stand_in import SERVICE, USER, StandIn, signed, standing_in

NOBODY = Registry({})
SESSION = Peer(Place.HERE, "127.0.0.1", "session-3.scope")
LOOPBACK = 'ingest.anonymous = "loopback"'


def settings(text: str) -> Settings:
    return read_settings_files([ConfigSource("helm.toml", text)])


async def who(request: web.Request) -> web.Response:
    identity = request["identity"]
    if identity is None:
        return json_response(None)
    services = None if identity.services is None else sorted(identity.services)
    return json_response([identity.name, identity.role, identity.via, identity.service, services])


async def twice(request: web.Request) -> web.Response:
    """As a stream does: looks again whether its caller still may."""
    for event in request.app["between"]:
        event()
    await request["recheck"]()
    return json_response("still")


TABLE = (
    Route("GET", "/open", who, Role.PUBLIC, "open"),
    Route("GET", "/any", who, Role.CLIENT, "any user"),
    Route("GET", "/logs", who, Role.BILLING, "logs", confined=True),
    Route("GET", "/metrics", who, Role.TECHNICIAN, "metrics"),
    Route("POST", "/admin", who, Role.ADMIN, "admin"),
    Route("POST", "/ingest", who, Role.CLIENT, "ingest", services=True, anonymous=True),
    Route("GET", "/stream", twice, Role.CLIENT, "stream"),
)


class Served:
    def __init__(self, core: StandIn, callers: Callers, app: web.Application, port: int) -> None:
        self.core = core
        self.callers = callers
        self.app = app
        self.port = port

    def adopt(self, text: str = "") -> None:
        self.callers.adopt(settings(text), Registry({"core": Service("core", url=self.core.url)}))

    async def ask(
        self, path: str, token: str | None = None, headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    ) -> tuple[int, Any, Any]:
        """Return the status, body and headers that a request over TCP gets; the method is the route's."""
        given = [*(headers.items() if isinstance(headers, Mapping) else headers)]
        if token is not None:
            given.append(("Authorization", f"Bearer {token}"))
        method = next(route.method for route in TABLE if path.endswith(route.path))
        async with aiohttp.ClientSession() as session:
            async with session.request(method, f"http://127.0.0.1:{self.port}{path}", headers=given) as answer:
                return answer.status, await answer.json(content_type=None), answer.headers


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    port = free_port()
    async with standing_in() as core, Callers(lambda _: SESSION) as callers:
        app = application(TABLE, callers)
        app["between"] = []
        server = HttpServer(app, tmp_path / "run/helm.sock", holder_of)
        await server.start("127.0.0.1", port)
        made = Served(core, callers, app, port)
        made.adopt()
        try:
            yield made
        finally:
            await server.stop()


def user(level: str, **claims: Any) -> str:
    given = {"preferred_username": level, "permission_level": level, "jti": level, "exp": int(time.time()) + 3600}
    return signed({**USER, **given, **claims})


def service(name: str, **claims: Any) -> str:
    given = {"sub": f"service:{name}", "calling_service": name, "exp": int(time.time()) + 300}
    return signed({**SERVICE, **given, **claims})


@pytest.mark.parametrize(
    ("level", "let_in"),
    [
        ("client", {"/any", "/ingest"}),
        ("billing", {"/any", "/ingest", "/logs"}),
        ("technician", {"/any", "/ingest", "/logs", "/metrics"}),
        ("admin", {"/any", "/ingest", "/logs", "/metrics", "/admin"}),
    ],
)
async def test_what_users_may_use(served: Served, level: str, let_in: set[str]) -> None:
    token = user(level)
    confined: list[str] | None = [] if level == "billing" else None
    for path in ("/any", "/ingest", "/logs", "/metrics", "/admin", "/helm/admin"):
        status, body, _ = await served.ask(path, token)
        if path.removeprefix("/helm") in let_in:
            assert (path, status, body) == (path, 200, [level, level, "token", None, confined])
        else:
            assert (path, status, body["code"]) == (path, 403, "denied")
    assert served.core.asked[VALIDATE_PATH] == 1


async def test_billing_is_confined_to_its_services_from_the_next_request_on(served: Served) -> None:
    token = user("billing")
    assert (await served.ask("/logs", token))[1][-1] == []
    served.adopt('roles.billing.services = ["ledger", "codex"]')
    assert (await served.ask("/logs", token))[1][-1] == ["codex", "ledger"]
    assert served.core.asked[VALIDATE_PATH] == 1


async def test_a_service_may_use_only_what_is_for_services(served: Served) -> None:
    token = service("codex")
    assert (await served.ask("/ingest", token))[:2] == (200, ["service:codex", "public", "token", "codex", None])
    for path in ("/any", "/logs", "/metrics", "/admin"):
        status, body, _ = await served.ask(path, token)
        assert (status, body["error"]) == (403, "services may not use this; service:codex is a service")
    assert served.core.asked[VALIDATE_PATH] == 0


async def test_a_bad_token_is_reported_as_such(served: Served) -> None:
    served.adopt(LOOPBACK)
    for token in ("anything", service("codex", target_service="nexus"), user("admin", exp=int(time.time()) - 10)):
        for path in ("/any", "/ingest"):
            status, body, headers = await served.ask(path, token)
            assert (status, body["code"]) == (401, "bad_token")
            assert headers["WWW-Authenticate"] == 'Bearer realm="helm", error="invalid_token"'
            assert token not in str(body)


async def test_no_token_is_none(served: Served) -> None:
    for header in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}, {"Authorization": ""}):
        status, body, headers = await served.ask("/any", headers=header)
        assert (status, body["code"]) == (401, "no_credential")
        assert headers["WWW-Authenticate"] == 'Bearer realm="helm"'


async def test_how_a_token_may_be_written(served: Served) -> None:
    for scheme in ("bearer ", "BEARER ", "Bearer   "):
        assert (await served.ask("/any", headers={"Authorization": scheme + user("admin")}))[0] == 200
    two = [("Authorization", "Bearer " + user(level)) for level in ("admin", "client")]
    assert (await served.ask("/any", headers=two))[0] == 400
    assert (await served.ask("/any", headers={"Authorization": f"Bearer {user('admin')} x"}))[0] == 401


async def test_what_is_public_does_not_look_at_tokens(served: Served) -> None:
    served.core.down = True
    assert (await served.ask("/open", "anything"))[:2] == (200, None)
    assert (await served.ask("/open", user("admin")))[:2] == (200, None)
    assert not served.core.asked


async def test_without_core_a_token_can_not_be_judged(served: Served) -> None:
    served.core.down = True
    status, body, _ = await served.ask("/any", user("admin"))
    assert (status, body["code"]) == (503, "core_unreachable")


async def test_a_stream_ends_with_its_callers_session(served: Served) -> None:
    assert (await served.ask("/stream", user("client")))[1] == "still"

    def revoke() -> None:
        served.core.revoked.add("client")
        # As after VERDICT_SECONDS: with the same Core at another URL nothing is remembered.
        other = served.core.url.replace("127.0.0.1", "localhost")
        served.callers.adopt(settings(f'core.url = "{other}"'), NOBODY)

    served.app["between"].append(revoke)
    status, body, _ = await served.ask("/stream", user("client"))
    assert (status, body["error"]) == (401, "the session has ended")


async def test_programs_on_the_machine_may_post_where_that_is_allowed(served: Served) -> None:
    assert (await served.ask("/ingest"))[0] == 401
    served.adopt(LOOPBACK)
    assert (await served.ask("/ingest"))[:2] == (200, ["anonymous", "public", "anonymous", None, None])
    assert (await served.ask("/any"))[0] == 401
    served.adopt()
    assert (await served.ask("/ingest"))[0] == 401


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "192.0.2.1"},
        {"x-forwarded-for": ""},
        {"X-Forwarded-Host": "helm.example"},
        {"Forwarded": "for=192.0.2.1"},
        {"Via": "1.1 proxy"},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Authorization": "Basic YTpi"},
    ],
)
async def test_what_came_through_a_proxy_or_from_a_page_is_no_such_program(
    served: Served, header: Mapping[str, str]
) -> None:
    served.adopt(LOOPBACK)
    assert (await served.ask("/ingest", headers=header))[0] == 401


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_loopback(address: str, own: bool) -> None:
    assert is_loopback(address) is own


def test_a_caller_without_a_name_is_no_user() -> None:
    other = Identity("anonymous", Role.PUBLIC, "anonymous")
    assert [Access(role).refusal(other) is None for role in Role] == [False] * len(Role)
    assert Access(Role.CLIENT, anonymous=True).refusal(other) is None


def test_settings() -> None:
    assert settings("").ingest_anonymous == "no"
    assert settings("").billing_services == ()
    read = settings('[roles.billing]\nservices = ["ledger"]\n[ingest]\nanonymous = "loopback"')
    assert (read.billing_services, read.ingest_anonymous) == (("ledger",), "loopback")


def test_where_core_is() -> None:
    known = Registry({"core": Service("core", url="https://core.example")})
    assert core_url(settings(""), NOBODY) == "http://localhost:5000"
    assert core_url(settings(""), known) == "https://core.example"
    assert core_url(settings('core.url = "http://127.0.0.1:9"'), known) == "http://127.0.0.1:9"
