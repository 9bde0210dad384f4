"""Logging in with a browser: at Keycloak, by a one-time link, for how long, and what ends it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web

from helmd.health.listeners import holder_of
from helmd.model.config.settings import Settings, read_settings_files
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import ConfigurationError, HelmError, KeycloakError
from helmd.model.identity.audit import AuditedChange
from helmd.model.identity.peer import Peer, Place
from helmd.model.identity.sessions import SessionLimits
from helmd.model.suite.service import Registry, Service
from helmd.operations.identity.session_files import SessionFiles
from helmd.web.auth.asking import RENEWAL_SECONDS, NoReplyError
from helmd.web.auth.identity import Callers
from helmd.web.auth.logins import CHECK_SECONDS, LINK_SECONDS, PENDING_SECONDS, Expiring, Logins
from helmd.web.auth.oidc import KEYS_PAUSE_SECONDS, BrowserLoginError, GrantedTokens, KeycloakRealm, PendingLogin
from helmd.web.auth.roles import PeerRule, Role
from helmd.web.auth.same_origin import foreign
from helmd.web.auth.sessions import BrowserSessions
from helmd.web.auth.verifier import RETRY_SECONDS
from helmd.web.http.problems import json_response
from helmd.web.pages import login as login_pages
from helmd.web.pages.assets import Assets
from helmd.web.pages.login import LoginPages
from helmd.web.pages.overview import OverviewPage
from helmd.web.pages.rendering import Renderer
from helmd.web.route import Route
from helmd.web.routes import login_routes, page_routes
from helmd.web.server import HttpServer, application
from tests.fakes import Statuses
from tests.free_ports import free_port
from tests.unit.core_stand_in import USER, StandIn, jwk, private_key, signed, standing_in
from tests.unit.keycloak_stand_in import ISSUER, KeycloakStandIn, keycloak_standing_in, logout_token
from tests.waiting import eventually

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OPENED = {**PAGE, "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
LIMITS = SessionLimits(1800.0, 28_800.0, 43_200.0)


async def who(request: web.Request) -> web.Response:
    found = request["identity"]
    return json_response([found.name, found.role, found.via, found.login_at is not None])


EXTRA = (
    Route("GET", "/api/who", who, Role.CLIENT, "who"),
    Route("POST", "/api/change", who, Role.ADMIN, "change", peer=PeerRule.ANY),
)


class Clock:
    """Both clocks of helmd, ahead of the real ones."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def wall(self) -> float:
        return time.time() + self.ahead

    def steady(self) -> float:
        return time.monotonic() + self.ahead


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    text: str
    cookies: SimpleCookie


class Served:
    """helmd with stand-ins for Keycloak and Core, and a browser's cookies."""

    def __init__(
        self, keycloak: KeycloakStandIn, core: StandIn, sessions: BrowserSessions, clock: Clock, port: int
    ) -> None:
        self.keycloak, self.core, self.sessions, self.clock, self.port = keycloak, core, sessions, clock, port
        self.socket = ""
        self.callers = Callers()
        self.registry = Registry({})
        self.recorded: list[AuditedChange] = []
        self.cookies: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] = PAGE, cookies: bool = True, **body: Any
    ) -> Reply:
        given = dict(headers)
        if cookies and self.cookies:
            given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        address = path if path.startswith("http") else self.url + path
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            async with session.request(method, address, headers=given, allow_redirects=False, **body) as reply:
                for name, morsel in reply.cookies.items():
                    self.cookies[name] = morsel.value
                    if not morsel.value:
                        del self.cookies[name]
                return Reply(reply.status, reply.headers, await reply.text(), reply.cookies)

    async def log_in(self, target: str = "/helm/", level: str = "admin", **claims: Any) -> Reply:
        """Log in completely; return the last response."""
        self.core.given.append(token(level, **claims))
        begun = await self.ask("GET", f"/helm/login?next={target}")
        query = self.keycloak.log_in(begun.headers["Location"])
        return await self.ask("GET", f"/helm/login/callback?{query}")


def token(level: str, **claims: Any) -> str:
    now = int(time.time())
    said = {"preferred_username": level, "permission_level": level, "jti": level, "iat": now, "exp": now + 3600}
    return signed({**USER, **said, **claims})


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    port = free_port()
    clock = Clock()
    async with keycloak_standing_in() as keycloak, standing_in() as core, Callers() as callers:
        sessions = BrowserSessions(SessionFiles(tmp_path / "sessions"), LIMITS, clock.wall)
        logins = callers.logins = Logins(sessions, clock.wall, clock.steady)
        registry = Registry(
            {
                "keycloak": Service("keycloak", type="keycloak", url=keycloak.url),
                "core": Service("core", url=core.url),
                "books": Service("books", url="http://localhost:1", billing_or_admin_only=True),
            }
        )
        callers.adopt(Settings(), registry)
        renderer = Renderer(assets := Assets())
        pages = page_routes(
            OverviewPage(Statuses(core=True, books=False), lambda: registry, logins, renderer),
            login := LoginPages(logins, renderer, lambda: f"http://localhost:{port}"),
            assets,
        )
        recorded: list[AuditedChange] = []
        app = application(
            (*pages, *login_routes(login), *EXTRA), callers, recorded.append, sessions=sessions, renderer=renderer
        )
        server = HttpServer(app, tmp_path / "run/helm.sock", holder_of)
        await server.start("127.0.0.1", port)
        made = Served(keycloak, core, sessions, clock, port)
        made.recorded = recorded
        made.callers, made.registry = callers, registry
        made.socket = str(tmp_path / "run/helm.sock")
        try:
            yield made
        finally:
            await server.stop()


async def test_a_login_from_the_page_that_was_asked_for_and_back(served: Served) -> None:
    refused = await served.ask("GET", "/helm/api/who?x=1", OPENED)
    assert (refused.status, refused.headers["Location"]) == (303, "/helm/login?next=/helm/api/who%3Fx%3D1")
    begun = await served.ask("GET", refused.headers["Location"])
    sent = urlsplit(begun.headers["Location"])
    asked = {name: values[0] for name, values in parse_qs(sent.query).items()}
    assert f"{sent.scheme}://{sent.netloc}{sent.path}" == f"{ISSUER}/protocol/openid-connect/auth"
    assert asked["client_id"] == "helm" and asked["response_type"] == "code" and asked["scope"] == "openid"
    assert asked["redirect_uri"] == f"{served.url}/helm/login/callback"
    assert asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
    assert len(asked["state"]) > 30 and len(asked["nonce"]) > 30
    served.core.given.append(token("technician"))
    answered = await served.ask("GET", f"/helm/login/callback?{served.keycloak.log_in(begun.headers['Location'])}")
    assert (answered.status, answered.headers["Location"]) == (303, "/helm/api/who?x=1")
    found = answered.cookies["helm_session"]
    assert (found["path"], found["httponly"], found["samesite"], found["secure"]) == ("/helm/", True, "Lax", "")
    assert not found["max-age"] and not found["domain"]
    assert list(served.cookies) == ["helm_session"]
    assert (await served.ask("GET", "/helm/api/who")).text == '["technician", "technician", "session", true]'


@pytest.mark.parametrize("change", ["state=other", "code=other", "drop cookie", "no code", "denied", "late"])
async def test_an_answer_that_does_not_belong_to_the_login(served: Served, change: str) -> None:
    served.core.given.append(token("admin"))
    begun = await served.ask("GET", "/helm/login")
    query = served.keycloak.log_in(begun.headers["Location"])
    if change == "state=other":
        query = query.replace("state=", "state=x")
    elif change == "code=other":
        query = query.replace("code=a-code", "code=b-code")
    elif change == "drop cookie":
        served.cookies.clear()
    elif change == "no code":
        query = query.partition("&code=")[0]
    elif change == "denied":
        query = query.replace("code=a-code", "error=access_denied")
    else:
        served.clock.ahead += PENDING_SECONDS + 1
    refused = await served.ask("GET", f"/helm/login/callback?{query}", {"Accept": "application/json"})
    assert refused.status == 403 and '"login_refused"' in refused.text
    assert "helm_session" not in served.cookies


async def test_tabs_of_a_browser_log_in_at_the_same_time(served: Served) -> None:
    served.core.given += [token("admin"), token("admin")]
    targets = ("/helm/jobs", "/helm/logs")
    begun = [await served.ask("GET", f"/helm/login?next={target}") for target in targets]
    answers = [served.keycloak.log_in(each.headers["Location"], f"code-{at}") for at, each in enumerate(begun)]
    for query, target in zip(answers, targets, strict=True):
        answered = await served.ask("GET", f"/helm/login/callback?{query}")
        assert (answered.status, answered.headers["Location"]) == (303, target)
    assert list(served.cookies) == ["helm_session"]


@pytest.mark.parametrize("query", ["", "state=", "&".join(["state=x"] * 21)])
async def test_an_answer_without_a_usable_state(served: Served, query: str) -> None:
    await served.ask("GET", "/helm/login")
    refused = await served.ask("GET", f"/helm/login/callback?{query}", {"Accept": "application/json"})
    assert refused.status == 403 and '"login_refused"' in refused.text


async def test_a_login_is_used_once(served: Served) -> None:
    await served.log_in()
    begun = await served.ask("GET", "/helm/login")
    query, kept = served.keycloak.log_in(begun.headers["Location"]), dict(served.cookies)
    served.core.given += [token("admin"), token("admin")]
    assert (await served.ask("GET", f"/helm/login/callback?{query}")).status == 303
    served.cookies = kept
    assert (await served.ask("GET", f"/helm/login/callback?{query}")).status == 403


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "other"},
        {"nonce": None},
        {"aud": "core-client"},
        {"aud": ["helm", "other"], "azp": "other"},
        {"iss": "https://evil.example/realms/hivematrix"},
        {"exp": 1},
        {"iat": None},
    ],
)
async def test_an_id_token_that_is_not_for_this_login(served: Served, claims: dict[str, Any]) -> None:
    served.keycloak.claims = claims
    refused = await served.log_in()
    assert refused.status == 403 and "helm_session" not in served.cookies


async def test_core_may_refuse_a_login_and_may_be_away(served: Served) -> None:
    begun = await served.ask("GET", "/helm/login")
    refused = await served.ask("GET", f"/helm/login/callback?{served.keycloak.log_in(begun.headers['Location'])}")
    assert refused.status == 403 and "Core did not accept the login" in refused.text
    served.core.down = True
    refused = await served.log_in()
    assert refused.status == 503 and "<h1" in refused.text and "Core" in refused.text
    served.core.given.clear()
    served.keycloak.down = True
    refused = await served.ask("GET", "/helm/login")
    assert refused.status == 303, "its addresses are known"


async def test_core_is_asked_again_when_it_can_not_say_who_that_is(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """As when Keycloak takes longer than Core waits for it."""
    served.core.failing = 2
    assert (await served.log_in()).status == 303
    assert served.core.asked["/api/token/exchange"] == 3 and not caplog.records
    served.core.failing = 3
    assert (await served.log_in()).status == 503
    assert "a login has failed: request to Core at" in caplog.text


async def test_without_keycloak_the_page_says_what_to_do(served: Served) -> None:
    served.keycloak.down = True
    refused = await served.ask("GET", "/helm/login")
    assert refused.status == 502 and "Keycloak can&#39;t be asked" in refused.text


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example", "/helm/..//evil.example", "/helm/\\evil", "/helm/login", "x" * 3000],
)
async def test_no_open_redirect(served: Served, target: str) -> None:
    assert (await served.log_in(target)).headers["Location"] == "/helm/"


async def test_another_name_of_the_host_leads_to_the_known_one(served: Served) -> None:
    sent = await served.ask("GET", f"http://127.0.0.1:{served.port}/helm/login?next=/helm/x")
    assert sent.headers["Location"] == f"{served.url}/helm/login?next=/helm/x"
    assert (await served.ask("GET", "/login")).headers["Location"] == f"{served.url}/helm/login?next=/helm/"


async def test_what_a_session_may_change_and_from_where(served: Served) -> None:
    await served.log_in()
    own = {"Sec-Fetch-Site": "same-origin"}
    assert (await served.ask("POST", "/helm/api/change", own)).status == 200
    assert (await served.ask("POST", "/helm/api/change", {"Origin": served.url})).status == 200
    for headers in (
        {},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": served.url},
        {"Origin": "https://localhost:8443"},
        {"Origin": "null"},
        {**own, "X-Forwarded-For": "10.0.0.1"},
        {**own, "X-Forwarded-Prefix": "/helm"},
    ):
        assert (await served.ask("POST", "/helm/api/change", headers)).status in (401, 403), headers
    assert (await served.ask("GET", "/helm/api/who", {"Sec-Fetch-Site": "same-site"})).status == 403
    linked = {**OPENED, "Sec-Fetch-Site": "cross-site"}
    assert (await served.ask("GET", "/helm/api/who", linked)).status == 200


async def test_after_a_pause_a_session_reads_then_ends(served: Served) -> None:
    await served.log_in()
    own = {"Sec-Fetch-Site": "same-origin"}
    served.clock.ahead = 1700
    served.core.given.append(token("admin", jti="2"))
    assert (await served.ask("GET", "/helm/", OPENED)).status == 200
    served.clock.ahead = 1700 + 1801
    refused = await served.ask("POST", "/helm/api/change", own)
    assert refused.status == 403 and "may only read" in refused.text
    page = await served.ask("GET", "/helm/", OPENED)
    assert page.status == 200 and "this session may only read" in page.text
    served.core.given.append(token("admin", jti="3"))
    # A new login makes it whole again, under another id.
    before = served.cookies["helm_session"]
    await served.log_in(jti="4")
    assert (await served.ask("POST", "/helm/api/change", own)).status == 200
    assert served.cookies["helm_session"] != before and len(served.sessions._kept) == 1


async def test_tokens_are_renewed_without_the_user(served: Served) -> None:
    await served.log_in(iat=int(time.time()), exp=int(time.time()) + 60)
    for turn in range(1, 20):
        served.clock.ahead += CHECK_SECONDS + 1
        now = int(served.clock.wall())
        served.core.given = [token("admin", jti=f"j{turn}", iat=now, exp=now + 60)]
        assert (await served.ask("GET", "/helm/api/who", OPENED)).status == 200
        assert not served.core.given, "the token was renewed"
    assert served.keycloak.refreshed == 19


async def test_a_token_that_lasts_is_not_renewed_until_groups_change(served: Served) -> None:
    await served.log_in()
    served.clock.ahead += CHECK_SECONDS + 1
    assert (await served.ask("GET", "/helm/api/who")).status == 200
    assert served.keycloak.refreshed == 1 and served.core.asked["/api/token/exchange"] == 1
    served.keycloak.claims = {"groups": ["client"]}
    served.core.given = [token("client", jti="2")]
    served.clock.ahead += CHECK_SECONDS + 1
    assert '"client", "session"' in (await served.ask("GET", "/helm/api/who")).text


async def test_a_session_that_ended_at_keycloak_has_ended_within_a_minute(served: Served) -> None:
    await served.log_in()
    served.keycloak.ended.add("refresh")
    served.clock.ahead += CHECK_SECONDS + 1
    assert (await served.ask("GET", "/helm/api/who", {"Accept": "*/*"})).status == 401
    assert not served.sessions._kept


async def test_without_keycloak_a_session_lasts_as_long_as_its_token(served: Served) -> None:
    await served.log_in(exp=int(time.time()) + 300)
    served.keycloak.down = True
    served.clock.ahead += CHECK_SECONDS + 1
    assert (await served.ask("GET", "/helm/api/who")).status == 200
    served.keycloak.down = False
    served.core.given = [token("admin", jti="2")]
    served.clock.ahead += RETRY_SECONDS + 1
    assert (await served.ask("GET", "/helm/api/who")).status == 200
    assert served.keycloak.refreshed == 1


async def test_a_session_that_core_ended_has_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.web.auth.verifier.VERDICT_SECONDS", 0.2)
    await served.log_in(jti="gone")
    assert served.core.asked["/api/token/validate"] == 0, "Core has just given the token"
    assert (await served.ask("GET", "/helm/api/who")).status == 200
    served.core.revoked.add("gone")
    await asyncio.sleep(0.3)
    assert (await served.ask("GET", "/helm/api/who", {"Accept": "*/*"})).status == 401
    assert not served.sessions._kept


async def test_log_out_ends_the_session_here_at_keycloak_and_at_core(served: Served) -> None:
    await served.log_in()
    kept = dict(served.cookies)
    assert (await served.ask("POST", "/helm/logout", {"Sec-Fetch-Site": "cross-site"})).status == 403
    assert (await served.ask("GET", "/helm/logout")).status == 200
    assert served.sessions._kept, "a link ends nothing"
    answer = await served.ask("POST", "/helm/logout", {"Sec-Fetch-Site": "same-origin"})
    assert (answer.status, answer.headers["Location"]) == (303, "/helm/logout")
    assert "helm_session" not in served.cookies
    assert served.keycloak.logged_out == ["refresh"] and served.core.revoked == {"admin"}
    assert (served.recorded[-1].action, served.recorded[-1].actor) == ("POST /logout", "admin")
    served.cookies = kept
    assert (await served.ask("GET", "/helm/api/who", {"Accept": "*/*"})).status == 401


@pytest.mark.parametrize(
    ("claims", "status", "ends"),
    [
        ({}, 200, True),
        ({"sid": None}, 200, True),
        ({"sub": None}, 200, True),
        ({"sid": "other"}, 200, False),
        ({"sid": None, "sub": None}, 400, False),
        ({"nonce": "n"}, 400, False),
        ({"events": None}, 400, False),
        ({"events": {"other": {}}}, 400, False),
        ({"events": "http://schemas.openid.net/event/backchannel-logout"}, 400, False),
        ({"aud": "core-client"}, 400, False),
        ({"iss": "https://evil.example"}, 400, False),
        ({"iat": 1000}, 400, False),
        ({"iat": None}, 400, False),
        ({"exp": 1000}, 400, False),
    ],
)
async def test_keycloaks_notice_of_a_logout(served: Served, claims: dict[str, Any], status: int, ends: bool) -> None:
    await served.log_in()
    form = {"logout_token": logout_token(**claims)}
    answer = await served.ask("POST", "/login/backchannel-logout", {}, cookies=False, data=form)
    assert answer.status == status, answer.text
    assert (not served.sessions._kept) is ends
    assert (await served.ask("GET", "/helm/api/who", {"Accept": "*/*"})).status == (401 if ends else 200)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"logout_token": ""},
        {"logout_token": "a.b.c"},
        {"logout_token": logout_token(private_key("another"))},
        {f"x{number}": "y" for number in range(30)},
    ],
)
async def test_what_is_no_notice_of_a_logout(served: Served, form: dict[str, str]) -> None:
    await served.log_in()
    assert (await served.ask("POST", "/login/backchannel-logout", {}, cookies=False, data=form)).status == 400
    assert served.sessions._kept


async def make_link(served: Served) -> str:
    connector = aiohttp.UnixConnector(served.socket)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.post("http://helm/api/login-links") as reply:
            assert reply.status == 201
            return str((await reply.json())["url"])


async def test_a_one_time_link_needs_neither_keycloak_nor_core(served: Served) -> None:
    served.keycloak.down = served.core.down = True
    url = await make_link(served)
    page, _, secret = url.partition("#")
    assert page == f"{served.url}/helm/login/once" and len(secret) == 43
    shown = await served.ask("GET", "/helm/login/once")
    assert shown.status == 200 and secret not in shown.text
    own = {"Sec-Fetch-Site": "same-origin", "Accept": "application/json"}
    for headers in ({"Accept": "*/*"}, {**own, "Sec-Fetch-Site": "cross-site"}, {**own, "X-Forwarded-For": "10.0.0.1"}):
        assert (await served.ask("POST", "/helm/login/once", headers, json={"secret": secret})).status == 403
    assert (await served.ask("GET", f"/helm/login/once?secret={secret}")).status == 200
    opened = await served.ask("POST", "/helm/login/once", own, json={"secret": secret})
    assert opened.status == 200, opened.text
    assert '"admin", "session", true]' in (await served.ask("GET", "/helm/api/who")).text
    assert (await served.ask("GET", "/helm/", OPENED)).status == 200
    owner = served.recorded[0].actor
    assert [(each.action, each.actor, each.result) for each in served.recorded if each.actor == owner] == [
        ("POST /api/login-links", owner, "done"),
        ("POST /login/once", owner, "done"),
    ]
    again = await served.ask("POST", "/helm/login/once", own, cookies=False, json={"secret": secret})
    assert again.status == 403 and "used already" in again.text
    late = (await make_link(served)).partition("#")[2]
    served.clock.ahead += LINK_SECONDS
    assert (await served.ask("POST", "/helm/login/once", own, json={"secret": late})).status == 403


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b'{"secret": 5}', b"[" * 10_000, b"\xff"], ids=range(7))
async def test_a_body_that_is_no_secret(served: Served, body: bytes) -> None:
    own = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
    assert (await served.ask("POST", "/helm/login/once", own, data=body)).status == 400
    assert (await served.ask("POST", "/helm/login/once", own, data=b"x" * 70_000)).status == 413


async def test_one_time_links_are_made_over_the_socket_alone(served: Served) -> None:
    headers = {"Authorization": f"Bearer {token('admin')}"}
    assert (await served.ask("POST", "/api/login-links", headers)).status == 403


async def test_a_session_outlasts_helmd_but_a_forged_one_is_none(served: Served, tmp_path: Path) -> None:
    await served.log_in()
    again = BrowserSessions(SessionFiles(tmp_path / "sessions"), LIMITS)
    (digest,) = again._kept
    assert served.cookies["helm_session"] not in digest
    served.cookies["helm_session"] = digest[:43]
    assert (await served.ask("GET", "/helm/api/who", {"Accept": "*/*"})).status == 401


def test_a_secret_is_taken_once_and_the_oldest_go_first() -> None:
    now = [0.0]
    kept = Expiring(60.0, 2, lambda: now[0])
    first, second, third = (kept.add(value) for value in "abc")
    assert kept.take(first) is None
    assert (kept.take(second), kept.take(second)) == ("b", None)
    now[0] = 60.0
    assert kept.take(third) is None
    assert kept.take("\udc80") is None


async def test_a_renewal_is_waited_for_less_long_than_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Keycloak hangs, every request of a session waits for it."""
    waited: list[float] = []

    async def ask(session: object, method: str, url: str, *, seconds: float = 3.0, **body: object) -> tuple[int, Any]:
        waited.append(seconds)
        raise NoReplyError("no answer")

    monkeypatch.setattr("helmd.web.auth.oidc.ask_json", ask)
    async with aiohttp.ClientSession() as session:
        realm = KeycloakRealm(session, "http://localhost:1/realms/hivematrix")
        for asking in (realm.refresh("token"), realm.log_out("token")):
            with pytest.raises(KeycloakError):
                await asking
    assert waited == [RENEWAL_SECONDS, RENEWAL_SECONDS]


async def test_sessions_that_are_renewed_at_the_same_time_wait_for_the_same_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a restart of helmd, when all tabs ask at once. A refused renewal would end the session."""
    keycloak, clock = KeycloakStandIn(), Clock()
    answers = [(503, None), (200, {"keys": [jwk(private_key())]})]
    asked: list[str] = []
    go_on = asyncio.Event()

    async def ask(session: object, method: str, url: str, **body: object) -> tuple[int, Any]:
        if url.endswith("/certs"):
            asked.append(url)
            await go_on.wait()
            return answers.pop(0)
        if url.endswith("/token"):
            tokens = {"access_token": "a", "refresh_token": "r", "token_type": "Bearer", "scope": "openid"}
            return 200, {**tokens, "id_token": keycloak.id_token(None)}
        return 200, {"issuer": ISSUER, "authorization_endpoint": f"{ISSUER}/protocol/openid-connect/auth"}

    async def renewed() -> list[object]:
        go_on.clear()
        waiting = [asyncio.create_task(realm.refresh("refresh")) for _ in range(3)]
        await eventually(lambda: bool(asked))
        # Without I/O, the others have come as far in a few rounds of the loop.
        for _ in range(20):
            await asyncio.sleep(0)
        go_on.set()
        return [type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)]

    monkeypatch.setattr("helmd.web.auth.oidc.ask_json", ask)
    async with aiohttp.ClientSession() as session:
        realm = KeycloakRealm(session, "http://localhost:1/realms/hivematrix", clock.wall, clock.steady)
        assert await renewed() == [KeycloakError] * 3
        with pytest.raises(KeycloakError):
            await realm.refresh("refresh")
        assert len(asked) == 1, "at most every few seconds, whatever tokens name"
        clock.ahead += KEYS_PAUSE_SECONDS
        asked.clear()
        assert await renewed() == [GrantedTokens] * 3
        assert len(asked) == 1


async def test_a_realm_without_a_usable_answer() -> None:
    async with keycloak_standing_in() as keycloak, aiohttp.ClientSession() as session:
        realm = KeycloakRealm(session, f"{keycloak.url}/realms/hivematrix")
        pending = PendingLogin()
        query = keycloak.log_in(await realm.login_url(pending, "http://localhost/helm/login/callback", fresh=True))
        assert keycloak.codes["a-code"]["prompt"] == "login"
        replies: list[tuple[web.Response, type[HelmError]]] = [
            (web.json_response({"error": "unknown_error"}, status=503), KeycloakError),
            (web.json_response({"access_token": "a"}), KeycloakError),
            (web.json_response([]), KeycloakError),
            (web.Response(text="<html>"), KeycloakError),
            (web.json_response({"error": "invalid_client"}, status=401), BrowserLoginError),
        ]
        for reply, error in replies:
            keycloak.token_reply = reply
            with pytest.raises(error):
                await realm.redeem(pending, query, "http://localhost/helm/login/callback")
        keycloak.token_reply = None
        with pytest.raises(BrowserLoginError, match="has ended"):
            await realm.redeem(pending, query, "http://localhost/other")


@pytest.mark.parametrize(
    ("method", "headers", "by_cookie", "refused"),
    [
        ("GET", {}, True, False),
        ("GET", {"Sec-Fetch-Site": "same-origin"}, True, False),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, True, True),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, True, True),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, False, False),
        ("POST", {}, False, False),
        ("POST", {"Sec-Fetch-Site": "none"}, False, False),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, False, False),
        ("POST", {"Sec-Fetch-Site": "same-site"}, False, True),
        ("POST", {"Host": "a:1", "Origin": "http://a:1"}, False, False),
        ("POST", {"Host": "a:1", "Origin": "http://a:2"}, False, True),
        ("POST", {"Host": "b", "X-Forwarded-Host": "a", "Origin": "https://a"}, False, False),
        ("POST", {"Host": "a:443", "Origin": "https://a"}, True, False),
        ("POST", {"Host": "a:443", "Origin": "http://a"}, True, True),
        ("POST", {"Host": "b", "X-Forwarded-Host": "a", "Origin": "https://a"}, True, True),
        ("POST", {"Host": "a", "Origin": "http://["}, True, True),
        ("POST", {"Origin": "http://a"}, True, True),
        ("PUT", {"Host": "", "Origin": "null"}, True, True),
        ("DELETE", {}, True, True),
    ],
)
def test_what_a_page_of_another_origin_may_not(
    method: str, headers: dict[str, str], by_cookie: bool, refused: bool
) -> None:
    assert bool(foreign(method, headers, by_cookie)) is refused


PROXY = Peer(Place.HERE, "127.0.0.1", "nginx.service")
GATEWAY = Peer(Place.HERE, "127.0.0.1", "hivematrix-nexus.service", owned=True)


@pytest.mark.parametrize(
    ("peer", "scheme", "trusted", "secure"),
    [
        (PROXY, "https", True, True),
        (PROXY, "http", True, False),
        (PROXY, "https", False, None),
        (GATEWAY, "https", True, None),
        (Peer(Place.HERE, "127.0.0.1", "hivematrix-codex.service", owned=True), "https", True, None),
        (Peer(Place.HERE, "127.0.0.2", "nginx.service"), "https", True, None),
    ],
    ids=["https", "http", "not trusted", "gateway", "module", "another address"],
)
async def test_behind_a_proxy_the_cookie_is_secure_and_of_no_use_to_others(
    served: Served, peer: Peer, scheme: str, trusted: bool, secure: bool | None
) -> None:
    served.callers._locate = lambda _: peer
    networks = (ip_network("127.0.0.1"),) if trusted else ()
    served.callers.adopt(Settings(trusted_proxies=networks), served.registry)
    sent = {**PAGE, "X-Forwarded-Proto": scheme, "X-Forwarded-For": "192.0.2.44"}
    served.core.given.append(token("admin"))
    begun = await served.ask("GET", "/helm/login", sent)
    if secure is None:
        assert (begun.status, list(begun.cookies)) == (403, [])
        served.callers._locate = lambda _: PROXY
        await served.log_in()
        served.callers._locate = lambda _: peer
        assert (await served.ask("GET", "/api/who", {**sent, "Accept": "*/*"})).status == 401
        return
    (pending,) = begun.cookies.values()
    query = served.keycloak.log_in(begun.headers["Location"])
    (session, ended) = (await served.ask("GET", f"/helm/login/callback?{query}", sent)).cookies.values()
    if session.key != "helm_session":
        session, ended = ended, session
    assert (bool(pending["secure"]), bool(session["secure"])) == (secure, secure)
    assert (session["path"], session["httponly"]) == ("/helm/", True)
    reply = await served.ask("GET", "/api/who", {**sent, "Accept": "*/*"})
    assert (reply.status, '"session"' in reply.text) == (200, True)


async def test_a_session_is_good_only_by_the_way_on_which_it_was_begun(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser sends the cookie to all ports of the host: whoever gets it there may pass it on to anywhere."""
    served.callers._locate = lambda _: PROXY
    served.callers.adopt(Settings(trusted_proxies=(ip_network("127.0.0.1"),)), served.registry)
    by_tls = {**PAGE, "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.44"}

    async def status(headers: dict[str, str]) -> int:
        return (await served.ask("GET", "/api/who", {**headers, "Accept": "*/*"})).status

    await served.log_in()
    assert [await status(PAGE), await status(by_tls)] == [200, 401]
    served.callers._locate = lambda _: Peer(Place.HERE, "127.0.0.1", "hivematrix-codex.service", owned=True)
    assert await status(PAGE) == 403
    served.callers._locate = lambda _: Peer(Place.ELSEWHERE, "192.0.2.44")
    monkeypatch.setattr("helmd.web.auth.identity.is_loopback", lambda address: False)
    assert await status(PAGE) == 401
    # One begun over TLS has a Secure cookie.
    monkeypatch.undo()
    served.callers._locate = lambda _: PROXY
    served.core.given.append(token("admin"))
    begun = await served.ask("GET", "/helm/login", by_tls)
    query = served.keycloak.log_in(begun.headers["Location"])
    await served.ask("GET", f"/helm/login/callback?{query}", by_tls)
    assert [await status(by_tls), await status(PAGE)] == [200, 401]


async def test_a_login_from_another_host_needs_tls(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_pages, "is_loopback", lambda address: False)
    for method, path in (("GET", "/helm/login"), ("GET", "/helm/login/callback?state=a"), ("POST", "/helm/login/once")):
        reply = await served.ask(method, path, {**PAGE, "Accept": "application/json", "Sec-Fetch-Site": "same-origin"})
        assert reply.status == 403 and "needs TLS" in reply.text, path


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.3", "desk.example.org"])
def test_an_address_that_other_hosts_reach_needs_a_proxy_with_tls(address: str) -> None:
    text = f'[http]\nlisten = "{address}"\n'
    with pytest.raises(ConfigurationError) as refused:
        read_settings_files([ConfigSource("helm.toml", text)])
    (fault,) = refused.value.faults
    assert (fault.line, fault.where) == (2, "http.listen") and "has no TLS of its own" in fault.sentence
    assert read_settings_files([ConfigSource("helm.toml", text + 'trusted_proxies = ["192.0.2.1"]')]).listen == address
    for own in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert read_settings_files([ConfigSource("helm.toml", f'http.listen = "{own}"')]).listen == own
