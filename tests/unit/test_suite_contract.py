"""Compares the sample suite with the shapes of the real services (tests/fixtures).

The sample programs are installed by tests/suite/install and run as processes, as they are under systemd. The only
fake is Keycloak's userinfo endpoint, which checks signature and expiry of the access tokens that the test makes; the
system tests use the real Keycloak.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hmac
import http.client
import json
import re
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fixtures import SERVICE, TOKEN_HEADER, USERS, Exchange, claims, exchanges, printed_lines
from tests.free_ports import free_port
from tests.waiting import WITHIN

CHECKOUT = Path(__file__).resolve().parents[2]
SERVICES = ("keycloak", "core", "nexus", "helm", "codex", "ledger", "knowledgetree")

# Claims that differ from token to token.
TOKEN_VARIES = {"iat", "exp", "jti"}


def payload(token: str) -> dict[str, Any]:
    """Return the claims of a token, whether or not it still has its signature."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: Any


def ask(
    port: int, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, tls: bool = False
) -> Answer:
    """Send one request; dict bodies are sent as JSON, text unchanged."""
    sent = dict(headers or {})
    data = body
    if isinstance(body, dict):
        data = json.dumps(body)
        sent["Content-Type"] = "application/json"
    if tls:
        context = ssl._create_unverified_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=WITHIN, context=context
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN)
    with contextlib.closing(connection):
        connection.request(method, path, body=data, headers=sent)  # type: ignore[arg-type]
        reply = connection.getresponse()
        text = reply.read()
        is_json = "json" in reply.headers.get("Content-Type", "")
        return Answer(reply.status, reply.headers, json.loads(text) if is_json and text else text.decode())


class Program:
    """A sample service as a process, ended with SIGTERM."""

    def __init__(self, directory: Path, environment: dict[str, str], tls: bool = False) -> None:
        self.directory = directory
        self.port = free_port()
        self.tls = tls
        # Of this process alone: several may run in one directory, one after the other or at once.
        self._stdout, self._stderr = (directory / f"{name}-{self.port}" for name in ("stdout", "stderr"))
        self._out = self._stdout.open("wb")
        self._err = self._stderr.open("wb")
        self.process = subprocess.Popen(
            ["pyenv/bin/python", "run.py"],
            cwd=directory,
            env={"PATH": "/usr/bin:/bin", "PORT": str(self.port), **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
        )

    def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        return ask(self.port, method, path, body, headers, self.tls)

    def wait_until_it_listens(self) -> None:
        limit = time.monotonic() + 5 * WITHIN
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        pytest.fail(f"{self.directory.name} does not listen: {self.stderr()}")

    def stdout(self) -> str:
        return self._stdout.read_text(encoding="utf-8")

    def stderr(self) -> str:
        return self._stderr.read_text(encoding="utf-8")

    def end(self) -> tuple[int, float]:
        """SIGTERM: the exit code and the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        took = time.monotonic() - started
        self._out.close()
        self._err.close()
        return code, took


@contextlib.contextmanager
def running(directory: Path, environment: dict[str, str], tls: bool = False) -> Iterator[Program]:
    program = Program(directory, environment, tls)
    try:
        program.wait_until_it_listens()
        yield program
    finally:
        program.end()


class Realm:
    """Keycloak as far as Core asks it: a key to mint access tokens with, and userinfo, which checks them."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        realm = self

        class UserInfo(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = realm._userinfo(self.path, self.headers.get("Authorization", ""))
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet: pytest's output is for the tests."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), UserInfo)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _userinfo(self, path: str, authorization: str) -> tuple[int, dict[str, Any]]:
        if path != "/realms/hivematrix/protocol/openid-connect/userinfo":
            return 404, {"error": "Unable to find matching target resource method"}
        try:
            token = authorization.removeprefix("Bearer ")
            claims = jwt.decode(token, self._key.public_key(), algorithms=["RS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError:
            return 401, {"error": "invalid_token", "error_description": "Token verification failed"}
        shown = ("sub", "email_verified", "name", "groups", "preferred_username", "given_name", "family_name", "email")
        return 200, {name: claims[name] for name in shown if name in claims}

    def access_token(self, claims: dict[str, Any], age: int = 0) -> str:
        """Return an access token with these claims, as if minted `age` seconds ago for five minutes."""
        now = int(time.time()) - age
        token: str = jwt.encode({**claims, "iat": now, "exp": now + 300}, self._key, algorithm="RS256")
        return token


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    stand_in = Realm()
    thread = threading.Thread(target=stand_in.server.serve_forever, daemon=True)
    thread.start()
    yield stand_in
    stand_in.server.shutdown()
    stand_in.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("suite")
    subprocess.run([CHECKOUT / "tests/suite/install", directory, "core", "nexus", "codex"], check=True)
    write_services(directory / "core", dict.fromkeys(SERVICES, "http://127.0.0.1:1"))
    return directory


def write_services(directory: Path, urls: dict[str, str]) -> None:
    """services.json as Helm writes it: whole, by rename."""
    draft = directory / "services.json.new"
    entry = {"visible": True, "admin_only": False, "billing_or_admin_only": False}
    draft.write_text(json.dumps({name: {"url": url, **entry} for name, url in urls.items()}), encoding="utf-8")
    draft.replace(directory / "services.json")


@pytest.fixture(scope="module")
def core(suite: Path, realm: Realm) -> Iterator[Program]:
    environment = {"KEYCLOAK_SERVER_URL": realm.url, "KEYCLOAK_REALM": "hivematrix"}
    with running(suite / "core", environment) as program:
        yield program


def exchange(core: Program, realm: Realm, claims: dict[str, Any]) -> str:
    """Return a user's token from Core for a login with these claims."""
    answer = core.ask("POST", "/api/token/exchange", {"access_token": realm.access_token(claims)})
    assert answer.status == 200, answer
    token: str = answer.body["token"]
    return token


def token_of(name: str, core: Program, realm: Realm) -> str:
    """Return a valid token of Core with the claims of this name."""
    if name != SERVICE:
        return exchange(core, realm, claims(name))
    request = {field: claims(name)[field] for field in ("calling_service", "target_service")}
    token: str = core.ask("POST", "/service-token", request).body["token"]
    return token


def forged(token: str) -> str:
    """Return the token with another signature."""
    head, body, signature = token.split(".")
    return f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def form(value: Any) -> tuple[str, str] | None:
    """Return the kind and the argument of one of the forms that tests/fixtures/README.md lists, or None for a plain
    value.
    """
    if isinstance(value, dict) and len(value) == 1:
        [(kind, argument)] = value.items()
        if kind.startswith("$"):
            return kind, argument
    return None


def made(value: Any, core: Program, realm: Realm) -> Any:
    """Return a value of a request: a token where the fixture asks for one."""
    if (found := form(value)) is None:
        return value
    kind, name = found
    if kind == "$access_token":
        return realm.access_token(claims(name))
    token = token_of(name, core, realm)
    if kind == "$forged":
        return forged(token)
    if kind == "$revoked":
        assert core.ask("POST", "/api/token/revoke", {"token": token}).status == 200
    else:
        assert kind == "$token", kind
    return token


def send(exchange: Exchange, core: Program, realm: Realm) -> Answer:
    """Send the request of an exchange."""
    headers, body = dict(exchange.headers), exchange.body
    if isinstance(body, dict):
        body = {field: made(value, core, realm) for field, value in body.items()}
    if exchange.bearer is not None:
        headers["Authorization"] = f"Bearer {made(exchange.bearer, core, realm)}"
    return core.ask(exchange.method, exchange.path, body, headers)


def assert_like(actual: Any, expected: Any, where: str) -> None:
    """The same keys, types and values, and what a form of the fixture allows."""
    if (found := form(expected)) is not None:
        kind, argument = found
        if kind == "$claims":
            assert jwt.get_unverified_header(actual) == TOKEN_HEADER
            assert_same_claims(payload(actual), claims(argument))
        elif kind == "$starts":
            assert actual.startswith(argument), where
        else:
            assert kind == "$type", where
            assert type(actual).__name__ == argument, where
        return
    assert type(actual) is type(expected), f"{where}: {actual!r} is not a {type(expected).__name__}"
    if isinstance(expected, dict):
        assert set(actual) == set(expected), f"{where}: {sorted(actual)} against {sorted(expected)}"
        for key in expected:
            assert_like(actual[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for index, (mine, theirs) in enumerate(zip(actual, expected, strict=True)):
            assert_like(mine, theirs, f"{where}[{index}]")
    else:
        assert actual == expected, where


def assert_same_claims(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert list(mine) == list(theirs)
    for claim, value in theirs.items():
        if claim in TOKEN_VARIES:
            assert type(mine[claim]) is type(value), claim
        else:
            assert mine[claim] == value, claim
    assert mine["exp"] - mine["iat"] == theirs["exp"] - theirs["iat"]
    assert abs(mine["iat"] - time.time()) < 60
    assert len(mine.get("jti", "")) == len(theirs.get("jti", ""))


@pytest.mark.parametrize("expected", exchanges(), ids=str)
def test_core_answers_as_the_real_one(expected: Exchange, core: Program, realm: Realm) -> None:
    answer = send(expected, core, realm)
    assert answer.status == expected.status, answer.body
    assert answer.headers["Content-Type"] == expected.content_type
    assert uuid.UUID(answer.headers["X-Correlation-ID"])
    assert_like(answer.body, expected.reply, expected.name)


@pytest.mark.parametrize("name", [*USERS, SERVICE])
def test_tokens_have_the_claims_of_the_real_ones(name: str, core: Program, realm: Realm) -> None:
    token = token_of(name, core, realm)
    assert jwt.get_unverified_header(token) == TOKEN_HEADER
    assert_same_claims(verified(token, core), claims(name))


def verified(token: str, core: Program) -> dict[str, Any]:
    """Return the claims, after checking the signature with the key that Core publishes."""
    keys = jwt.PyJWKSet.from_dict(core.ask("GET", "/.well-known/jwks.json").body).keys
    found: dict[str, Any] = jwt.decode(token, keys[0].key, algorithms=["RS256"], issuer="hivematrix-core")
    return found


def test_expired_or_foreign_access_tokens_are_refused(core: Program, realm: Realm) -> None:
    user = claims("technician")
    for token in (realm.access_token(user, age=600), Realm().access_token(user), "a\r\nX-Evil: 1", 7, ["x"]):
        answer = core.ask("POST", "/api/token/exchange", {"access_token": token})
        assert (answer.status, answer.body) == (401, {"error": "the access token is not valid"})


def test_a_user_in_no_group_is_a_client(core: Program, realm: Realm) -> None:
    user = {"sub": "s", "preferred_username": "nogroup", "groups": ["/nosuch"]}
    assert payload(exchange(core, realm, user))["permission_level"] == "client"
    user["groups"] = ["/billing", "/admins"]
    assert payload(exchange(core, realm, user))["permission_level"] == "admin"


def test_correlation_id_is_echoed_unless_it_is_unusable(core: Program) -> None:
    assert core.ask("GET", "/health", headers={"X-Correlation-ID": "abc-1"}).headers["X-Correlation-ID"] == "abc-1"
    made = core.ask("GET", "/health", headers={"X-Correlation-ID": "x" * 500}).headers["X-Correlation-ID"]
    assert uuid.UUID(made)


def test_services_json_is_read_again_when_it_changes(core: Program) -> None:
    request = {"calling_service": "newcomer", "target_service": "helm"}
    urls = dict.fromkeys(SERVICES, "http://127.0.0.1:1")
    assert core.ask("POST", "/service-token", request).status == 400
    write_services(core.directory, {**urls, "newcomer": ""})
    assert core.ask("POST", "/service-token", request).status == 200
    (core.directory / "services.json").write_text("{", encoding="utf-8")
    assert core.ask("POST", "/service-token", request).status == 200, "the last good content stays"
    write_services(core.directory, urls)
    assert core.ask("POST", "/service-token", request).status == 400


def test_lines_are_of_the_styles_of_the_real_one(core: Program) -> None:
    """JSON records and plain lines on stdout; access lines and errors, whole with their traceback, on stderr."""
    core.ask("GET", "/service-token")
    styles = {printed.style: printed.line for printed in printed_lines() if printed.service == "core"}
    records = [json.loads(line) for line in core.stdout().splitlines() if line.startswith("{")]
    assert records and list(records[0]) == list(json.loads(styles["json"]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", records[0]["timestamp"])

    error_keys = list(json.loads(styles["json with an exception"]))
    errors = [json.loads(line) for line in core.stderr().splitlines() if line.startswith("{")]
    assert any(list(error) == error_keys and "Traceback" in error["exception"] for error in errors)
    access = re.compile(r'INFO:werkzeug:127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4} [\d:]{8}\] "[A-Z]+ \S+ HTTP/1\.1" \d{3} -')
    assert access.fullmatch(styles["access, logging"])
    lines = [line for line in core.stderr().splitlines() if not line.startswith("{")]
    assert lines and all(access.fullmatch(line) for line in lines)


def test_the_key_is_made_once_and_kept(suite: Path, core: Program) -> None:
    key = suite / "core/keys/jwt_private.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in key.parent.iterdir()] == ["jwt_private.pem"]
    before = core.ask("GET", "/.well-known/jwks.json").body
    with running(suite / "core", {"CORE_DEGRADED": "1"}) as again:
        assert again.ask("GET", "/.well-known/jwks.json").body == before
        health = again.ask("GET", "/health")
    assert (health.status, health.body["status"]) == (503, "degraded")


def test_keycloak_away_is_said(suite: Path) -> None:
    with running(suite / "core", {"KEYCLOAK_SERVER_URL": "http://127.0.0.1:1"}) as alone:
        assert alone.ask("POST", "/api/token/exchange", {"access_token": "x"}).status == 503
        assert alone.ask("GET", "/health").status == 200


@pytest.mark.parametrize("name", ["core", "codex"])
def test_sigterm_ends_it_cleanly_and_at_once(name: str, suite: Path) -> None:
    took = []
    for _ in range(10):
        program = Program(suite / name, {})
        program.wait_until_it_listens()
        with socket.create_connection(("127.0.0.1", program.port)):  # a client that keeps its connection open
            program.ask("GET", "/health")
            code, seconds = program.end()
        assert code == 0
        took.append(seconds)
        if seconds < 0.3:
            break
    # The best of ten: other work on this machine must not decide it.
    assert min(took) < 0.3, took


def test_codex_without_its_database_is_unhealthy(suite: Path) -> None:
    with running(suite / "codex", {"DATABASE_URL": "postgresql:///codex?host=/nonexistent"}) as codex:
        answer = codex.ask("GET", "/health")
    assert (answer.status, answer.body["checks"]["database"]["status"]) == (503, "unhealthy")


SECRET_KEY = "of the gateway"
PAGE = """<!doctype html><html lang="en" data-theme="x"><head><title>Notes</title></head>\
<body class="b"><p>Hi</p></body></html>"""


def session_cookie(token: str) -> str:
    """Return the cookie of a user who is logged in at the gateway, signed with its key."""
    content = base64.urlsafe_b64encode(json.dumps({"token": token}).encode()).decode().rstrip("=")
    return f"session={content}.{hmac.new(SECRET_KEY.encode(), content.encode(), 'sha256').hexdigest()}"


class Echo(BaseHTTPRequestHandler):
    """A service behind the gateway that says what reached it, or has a page, or a stream of events."""

    seen = threading.Event()
    """Whether the first event has been read; the second one follows."""

    def do_GET(self) -> None:
        if self.path.startswith("/page"):
            self._answer(PAGE, "text/html; charset=utf-8")
            return
        if self.path.startswith("/events"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: 1\n\n")
            if self.seen.wait(WITHIN):
                self.wfile.write(b"data: 2\n\n")
            return
        body = json.dumps({"path": self.path, "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close, X-Internal")
        self.send_header("X-Internal", "1")
        self.send_header("Set-Cookie", "KC_RESTART=1; Version=1; Path=/realms/hivematrix/; HttpOnly")
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, text: str, kind: str) -> None:
        content = gzip.compress(text.encode())
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: pytest's output is for the tests."""


@pytest.fixture(scope="module")
def nexus(suite: Path, core: Program) -> Iterator[Program]:
    certificate, key = suite / "nexus/certs/nexus.crt", suite / "nexus/certs/nexus.key"
    certificate.parent.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        thread = threading.Thread(target=echo.serve_forever, daemon=True)
        thread.start()
        urls = {"core": f"http://127.0.0.1:{core.port}", "codex": f"http://127.0.0.1:{echo.server_address[1]}"}
        write_services(suite / "nexus", urls)
        environment = {"SECRET_KEY": SECRET_KEY, "KEYCLOAK_BACKEND_URL": urls["codex"]}
        with running(suite / "nexus", environment, tls=True) as program:
            yield program
        echo.shutdown()
        thread.join()


def test_nexus_passes_nothing_on_without_a_good_token(nexus: Program) -> None:
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Cookie": "session=x"}, {"Cookie": "session=e30.x"}):
        assert nexus.ask("GET", "/codex/secret", headers=headers).status == 401
    page = nexus.ask("GET", "/codex/a?b=c", headers={"Accept": "text/html"})
    assert (page.status, page.headers["Location"]) == (302, "/login?next=%2Fcodex%2Fa%3Fb%3Dc")
    login = nexus.ask("GET", "/login?next=%2Fcodex%2F")
    target = urlsplit(login.headers["Location"])
    assert (login.status, target.path) == (302, "/keycloak/realms/hivematrix/protocol/openid-connect/auth")
    query = parse_qs(target.query)
    assert query["client_id"] == ["core-client"]
    assert query["redirect_uri"] == [f"https://127.0.0.1:{nexus.port}/keycloak-callback"]
    begun = login.headers["Set-Cookie"].partition(";")[0]
    for answer in ("code=x&state=other", "error=access_denied"):
        assert nexus.ask("GET", f"/keycloak-callback?{answer}", headers={"Cookie": begun}).status == 401
    assert nexus.ask("GET", "/nosuch/").status == 404


def test_nexus_strips_the_prefix_and_sets_the_headers(nexus: Program, core: Program, realm: Realm) -> None:
    token = exchange(core, realm, claims("technician"))
    sent = {
        "Cookie": f"a=1; {session_cookie(token)}; b=2",
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Prefix": "/evil",
        "Connection": "X-Hop",
        "X-Hop": "1",
        "X-Correlation-ID": "trace-1",
    }
    answer = nexus.ask("GET", "/codex/a%2Fb?c=%20d", headers=sent)
    assert answer.status == 200
    assert answer.headers["X-Internal"] is None
    assert answer.headers["X-Correlation-ID"] == "trace-1"
    assert answer.body["path"] == "/a%2Fb?c=%20d"
    got = answer.body["headers"]
    assert got["Authorization"] == f"Bearer {token}"
    assert got["Cookie"] == sent["Cookie"], "a service gets all cookies, the gateway's own among them"
    assert (got["X-Forwarded-For"], got["X-Forwarded-Proto"]) == ("127.0.0.1", "https")
    assert (got["X-Forwarded-Host"], got["X-Forwarded-Prefix"]) == (f"127.0.0.1:{nexus.port}", "/codex")
    assert got["X-Correlation-ID"] == "trace-1"
    assert "X-Hop" not in got


def test_nexus_changes_pages_as_the_real_one(nexus: Program, core: Program, realm: Realm) -> None:
    """Four scripts without nonce, stylesheets behind the page's own, a panel beside the body; headers stay."""
    headers = {"Cookie": session_cookie(exchange(core, realm, claims("technician")))}
    answer = nexus.ask("GET", "/codex/page", headers=headers)
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
    assert answer.headers["Content-Encoding"] is None
    scripts = re.findall(r"<script>(.+?)</script>", answer.body, re.DOTALL)
    assert len(scripts) == 4 and "<script nonce" not in answer.body
    assert answer.body.startswith('<!doctype html><html lang="en" data-theme="light" data-color-theme="purple">')
    sheets = re.findall(r'<link rel="stylesheet" href="(/static/css/[^"?]+)\?v=[^"]+">', answer.body)
    assert sheets == ["/static/css/global.css", "/static/css/side-panel.css"]
    assert answer.body.index("<title>") < answer.body.index("<link") < answer.body.index("</head>")
    assert re.search(
        r'<body class="b"><div class="hivematrix-layout"><div class="hivematrix-side-panel".*'
        r'<div class="hivematrix-content"><p>Hi</p></div></div><script>',
        answer.body,
        re.DOTALL,
    )
    again = nexus.ask("GET", "/codex/page", headers=headers)
    assert again.body == answer.body, "the scripts are always the same"
    styles = nexus.ask("GET", sheets[0])
    assert styles.headers["Content-Type"].startswith("text/css") and 145_000 < len(styles.body) < 155_000
    assert styles.body.startswith("@import url('https://fonts.googleapis.com/") and "\ntable td" in styles.body


def test_nexus_passes_events_on_as_they_come(nexus: Program, core: Program, realm: Realm) -> None:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", nexus.port, timeout=WITHIN, context=ssl._create_unverified_context()
    )
    with contextlib.closing(connection):
        token = exchange(core, realm, claims("technician"))
        connection.request("GET", "/codex/events", headers={"Cookie": session_cookie(token)})
        reply = connection.getresponse()
        assert reply.read1() == b"data: 1\n\n"
        Echo.seen.set()
        assert reply.read() == b"data: 2\n\n"


def test_nexus_leads_to_keycloak_and_keeps_its_cookies_there(nexus: Program) -> None:
    for path in ("/keycloak/realms/hivematrix/account?x=1", "/realms/hivematrix/account?x=1"):
        answer = nexus.ask("GET", path, headers={"Cookie": "a=1"})
        assert answer.body["path"] == "/realms/hivematrix/account?x=1"
        got = answer.body["headers"]
        assert (got["X-Forwarded-Prefix"], got["X-Forwarded-Port"]) == ("/keycloak", "443")
        assert (got["Cookie"], got.get("Authorization")) == ("a=1", None)
        assert answer.headers["Set-Cookie"] == "KC_RESTART=1; Version=1; Path=/keycloak; HttpOnly"


def test_nexus_asks_core_whether_a_session_is_open(nexus: Program, core: Program, realm: Realm) -> None:
    cookie = session_cookie(exchange(core, realm, claims("admin")))
    assert nexus.ask("GET", "/codex/x", headers={"Cookie": cookie}).status == 200
    left = nexus.ask("GET", "/logout", headers={"Cookie": cookie})
    assert left.headers["Clear-Site-Data"] == '"cache", "cookies", "storage"'
    assert nexus.ask("GET", "/codex/x", headers={"Cookie": cookie}).status == 401


def test_nexus_says_what_is_missing(suite: Path) -> None:
    run = subprocess.run(
        ["pyenv/bin/python", "run.py"],
        cwd=suite / "nexus",
        env={"PATH": "/usr/bin:/bin", "NEXUS_CERT": "/nonexistent/nexus.crt"},
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert run.returncode == 1
    assert "the certificate /nonexistent/nexus.crt is missing" in run.stderr


def test_install_again_keeps_what_was_made(suite: Path, core: Program) -> None:
    settings = core.directory / ".flaskenv"
    settings.write_text("KEYCLOAK_REALM=mine\n", encoding="utf-8")
    key = (core.directory / "keys/jwt_private.pem").read_bytes()
    (core.directory / "run.py").write_text("old", encoding="utf-8")
    subprocess.run([CHECKOUT / "tests/suite/install", suite, "core"], check=True)
    assert settings.read_text(encoding="utf-8") == "KEYCLOAK_REALM=mine\n"
    assert (core.directory / "keys/jwt_private.pem").read_bytes() == key
    assert (core.directory / "run.py").read_bytes() == (CHECKOUT / "tests/suite/core/run.py").read_bytes()
