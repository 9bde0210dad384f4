"""Holds the sample suite against the recordings of the real Core (contract/core_*, contract/jwt_*).

The sample programs are installed by tests/suite/install and run as processes, as they are under systemd. The one
stand-in is Keycloak's userinfo endpoint, small and honest: it checks signature and expiry of the access tokens that the
test mints; the system tests use the real Keycloak.

The recordings lie outside the checkout: in $HIVEMATRIX_SHARED/contract, by default ../shared/contract beside it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
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

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

CHECKOUT = Path(__file__).resolve().parents[2]
CONTRACT = Path(os.environ.get("HIVEMATRIX_SHARED") or CHECKOUT.parent / "shared") / "contract"
SERVICES = ("keycloak", "core", "nexus", "helm", "codex", "ledger", "knowledgetree")

RECORDINGS = (
    "core_404", "core_exchange_bad", "core_exchange_none", "core_exchange_ok", "core_exchange_ok_bearer_emptybody",
    "core_health", "core_jwks", "core_revoke_again", "core_revoke_garbage", "core_revoke_none", "core_revoke_ok",
    "core_revoke_service", "core_service_token_badjson", "core_service_token_badname", "core_service_token_get",
    "core_service_token_missing", "core_service_token_nojson", "core_service_token_ok",
    "core_service_token_unknown_caller", "core_service_token_unknown_target", "core_validate_badsig",
    "core_validate_bearer_nobody", "core_validate_garbage", "core_validate_none", "core_validate_revoked",
    "core_validate_service_token", "core_validate_user_bearer", "core_validate_user_ok",
)  # fmt: skip
USERS = ("admin", "tech", "bill", "carl")

# Recorded with the token in the Authorization header, which the recording leaves out.
BY_BEARER = {"core_exchange_ok_bearer_emptybody", "core_validate_user_bearer", "core_validate_bearer_nobody"}
# Recorded after the same token had been revoked once.
REVOKED_BEFORE = {"core_validate_revoked", "core_revoke_again"}
# What differs from run to run: only its type is held against the recording.
VARIES = {"timestamp", "n", "free_gb", "total_gb", "usage_percent"}
# Claims that differ from token to token.
TOKEN_VARIES = {"iat", "exp", "jti"}


def recorded(name: str) -> Any:
    path = CONTRACT / f"{name}.json"
    if not path.is_file():
        pytest.fail(
            f"the recording {path} is missing. These tests hold the sample suite against the recordings of the real "
            "Core: set HIVEMATRIX_SHARED to the directory that has contract/ in it."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def payload(token: str) -> dict[str, Any]:
    """The claims of a token, whether or not it still has its signature."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: Any


def ask(
    port: int, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, tls: bool = False
) -> Answer:
    """One request; dict bodies go as JSON, text as it is."""
    sent = dict(headers or {})
    data = body
    if isinstance(body, dict):
        data = json.dumps(body)
        sent["Content-Type"] = "application/json"
    if tls:
        context = ssl._create_unverified_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=10, context=context
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
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
        self._out = (directory / "stdout").open("wb")
        self._err = (directory / "stderr").open("wb")
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
        limit = time.monotonic() + 15
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        pytest.fail(f"{self.directory.name} does not listen: {self.stderr()}")

    def stdout(self) -> str:
        return (self.directory / "stdout").read_text(encoding="utf-8")

    def stderr(self) -> str:
        return (self.directory / "stderr").read_text(encoding="utf-8")

    def end(self) -> tuple[int, float]:
        """SIGTERM: the exit code and the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=5)
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
        """An access token with these claims, as if minted `age` seconds ago for five minutes."""
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
    """A user's token from Core for a login with these claims."""
    answer = core.ask("POST", "/api/token/exchange", {"access_token": realm.access_token(claims)})
    assert answer.status == 200, answer
    token: str = answer.body["token"]
    return token


def live_token(core: Program, realm: Realm, claims: dict[str, Any]) -> str:
    """A valid token of Core with the claims of a recorded one."""
    if claims.get("type") == "service":
        request = {"calling_service": claims["calling_service"], "target_service": claims["target_service"]}
        token: str = core.ask("POST", "/service-token", request).body["token"]
        return token
    return exchange(core, realm, claims)


def spoil_signature(token: str) -> str:
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def replay(name: str, core: Program, realm: Realm) -> Answer:
    """Sends the recorded request, with living tokens in the place of those whose signature was removed."""
    request = recorded(name)["request"]
    body, headers = request["body"], dict(request["headers"])
    user = recorded("jwt_user_tech")["payload"]
    if isinstance(body, dict):
        body = dict(body)
        if "<removed" in str(body) or "signature-removed" in str(body):
            for field, token in body.items():
                claims = payload(token)
                if field == "access_token":
                    body[field] = realm.access_token(claims)
                    continue
                body[field] = live_token(core, realm, claims)
                if name in REVOKED_BEFORE:
                    assert core.ask("POST", "/api/token/revoke", {"token": body[field]}).status == 200
                if name == "core_validate_badsig":
                    body[field] = spoil_signature(body[field])
    if name in BY_BEARER:
        token = realm.access_token(user) if "exchange" in name else exchange(core, realm, user)
        headers["Authorization"] = f"Bearer {token}"
    path = re.sub(r"^http://localhost:5000", "", request["url"])
    return core.ask(request["method"], path, body, headers)


def assert_like(actual: Any, expected: Any, where: str) -> None:
    """The same keys and types everywhere, and the same values where they don't vary by nature."""
    assert type(actual) is type(expected), f"{where}: {actual!r} is no {type(expected).__name__}"
    if isinstance(expected, dict):
        assert set(actual) == set(expected), f"{where}: {sorted(actual)} against {sorted(expected)}"
        for key in expected:
            if key == "token":
                assert_same_token(actual[key], expected[key])
            elif key in VARIES:
                assert type(actual[key]) is type(expected[key]), f"{where}.{key}"
            else:
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


def assert_same_token(mine: str, theirs: str) -> None:
    header = theirs.split(".")[0]
    assert jwt.get_unverified_header(mine) == json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    assert_same_claims(payload(mine), payload(theirs))


def test_every_recording_is_replayed() -> None:
    found = {path.stem for path in CONTRACT.glob("core_*.json")}
    assert found == set(RECORDINGS), f"the recordings in {CONTRACT} are not those that are replayed here"


@pytest.mark.parametrize("name", RECORDINGS)
def test_core_answers_as_recorded(name: str, core: Program, realm: Realm) -> None:
    expected = recorded(name)["response"]
    answer = replay(name, core, realm)
    assert answer.status == expected["status"], answer.body
    assert answer.headers["Content-Type"] == expected["headers"]["Content-Type"]
    assert uuid.UUID(answer.headers["X-Correlation-ID"])
    body = expected["body"]
    if name == "core_health":
        # The sample core has no Redis, so it has nothing to check there.
        del body["checks"]["redis"]
    assert_like(answer.body, body, name)


@pytest.mark.parametrize("user", USERS)
def test_user_tokens_have_the_recorded_claims(user: str, core: Program, realm: Realm) -> None:
    expected = recorded(f"jwt_user_{user}")
    token = exchange(core, realm, expected["payload"])
    assert jwt.get_unverified_header(token) == expected["header"]
    assert_same_claims(verified(token, core), expected["payload"])


def test_service_token_has_the_recorded_claims(core: Program) -> None:
    expected = recorded("jwt_service_codex_to_helm")
    request = {"calling_service": "codex", "target_service": "helm"}
    token = core.ask("POST", "/service-token", request).body["token"]
    assert jwt.get_unverified_header(token) == expected["header"]
    assert_same_claims(verified(token, core), expected["payload"])


def verified(token: str, core: Program) -> dict[str, Any]:
    """The claims, after checking the signature with the key that Core publishes."""
    keys = jwt.PyJWKSet.from_dict(core.ask("GET", "/.well-known/jwks.json").body).keys
    claims: dict[str, Any] = jwt.decode(token, keys[0].key, algorithms=["RS256"], issuer="hivematrix-core")
    return claims


def test_expired_or_foreign_access_tokens_are_refused(core: Program, realm: Realm) -> None:
    claims = recorded("jwt_user_tech")["payload"]
    for token in (realm.access_token(claims, age=600), Realm().access_token(claims), "a\r\nX-Evil: 1", 7, ["x"]):
        answer = core.ask("POST", "/api/token/exchange", {"access_token": token})
        assert (answer.status, answer.body) == (401, {"error": "Invalid access token"})


def test_a_user_in_no_group_is_a_client(core: Program, realm: Realm) -> None:
    claims = {"sub": "s", "preferred_username": "nogroup", "groups": ["/nosuch"]}
    assert payload(exchange(core, realm, claims))["permission_level"] == "client"
    claims["groups"] = ["/billing", "/admins"]
    assert payload(exchange(core, realm, claims))["permission_level"] == "admin"


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


def test_lines_are_of_the_recorded_styles(core: Program) -> None:
    """JSON records and plain lines on stdout; access lines and errors, whole with their traceback, on stderr."""
    core.ask("GET", "/service-token")
    samples = recorded("wire_stdout_samples")
    styles = {sample["kind"]: sample["sample"] for sample in samples if sample["service"] == "core"}
    records = [json.loads(line) for line in core.stdout().splitlines() if line.startswith("{")]
    assert records and list(records[0]) == list(json.loads(styles["json"]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", records[0]["timestamp"])

    error_keys = list(styles["json with correlation_id and exception (stderr, one line)"])
    errors = [json.loads(line) for line in core.stderr().splitlines() if line.startswith("{")]
    assert any(list(error) == error_keys and "Traceback" in error["exception"] for error in errors)
    access = re.compile(r'INFO:werkzeug:127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4} [\d:]{8}\] "[A-Z]+ \S+ HTTP/1\.1" \d{3} -')
    assert access.fullmatch(styles["root:INFO"])
    lines = [line for line in core.stderr().splitlines() if not line.startswith("{")]
    assert lines and all(access.fullmatch(line) for line in lines)


def test_the_key_is_made_once_and_kept(suite: Path, core: Program) -> None:
    key = suite / "core/keys/private.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in key.parent.iterdir()] == ["private.pem"]
    before = core.ask("GET", "/.well-known/jwks.json").body
    with running(suite / "core", {"CORE_DEGRADED": "1"}) as again:
        assert again.ask("GET", "/.well-known/jwks.json").body == before
        health = again.ask("GET", "/health")
    assert (health.status, health.body["status"]) == (503, "degraded")


def test_keycloak_away_is_said(suite: Path) -> None:
    with running(suite / "core", {"KEYCLOAK_SERVER_URL": "http://127.0.0.1:1"}) as lonely:
        assert lonely.ask("POST", "/api/token/exchange", {"access_token": "x"}).status == 503
        assert lonely.ask("GET", "/health").status == 200


@pytest.mark.parametrize("name", ["core", "codex"])
def test_sigterm_ends_it_cleanly_and_at_once(name: str, suite: Path) -> None:
    program = Program(suite / name, {})
    program.wait_until_it_listens()
    with socket.create_connection(("127.0.0.1", program.port)):  # a client that keeps its connection open
        program.ask("GET", "/health")
        code, took = program.end()
    assert code == 0
    assert took < 0.3


def test_codex_without_its_database_is_unhealthy(suite: Path) -> None:
    with running(suite / "codex", {"DATABASE_URL": "postgresql:///codex?host=/nonexistent"}) as codex:
        answer = codex.ask("GET", "/health")
    assert (answer.status, answer.body["checks"]["database"]["status"]) == (503, "unhealthy")


class Echo(BaseHTTPRequestHandler):
    """A service behind the gateway that says what reached it."""

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close, X-Internal")
        self.send_header("X-Internal", "1")
        self.end_headers()
        self.wfile.write(body)

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
        with running(suite / "nexus", {}, tls=True) as program:
            yield program
        echo.shutdown()
        thread.join()


def test_nexus_passes_nothing_on_without_a_good_token(nexus: Program) -> None:
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Cookie": "access_token=x"}):
        assert nexus.ask("GET", "/codex/secret", headers=headers).status == 401
    page = nexus.ask("GET", "/codex/a?b=c", headers={"Accept": "text/html"})
    assert (page.status, page.headers["Location"]) == (302, "/login?next=%2Fcodex%2Fa%3Fb%3Dc")
    assert nexus.ask("GET", "/login").status == 200
    assert nexus.ask("GET", "/nosuch/").status == 404


def test_nexus_strips_the_prefix_and_sets_the_headers(nexus: Program, core: Program, realm: Realm) -> None:
    token = exchange(core, realm, recorded("jwt_user_tech")["payload"])
    sent = {
        "Cookie": f"a=1; access_token={token}; b=2",
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
    assert got["Cookie"] == "a=1; b=2"
    assert (got["X-Forwarded-For"], got["X-Forwarded-Proto"]) == ("127.0.0.1", "https")
    assert (got["X-Forwarded-Host"], got["X-Forwarded-Prefix"]) == (f"127.0.0.1:{nexus.port}", "/codex")
    assert got["X-Correlation-ID"] == "trace-1"
    assert "X-Hop" not in got


def test_nexus_says_what_is_missing(suite: Path) -> None:
    run = subprocess.run(
        ["pyenv/bin/python", "run.py"],
        cwd=suite / "nexus",
        env={"PATH": "/usr/bin:/bin", "NEXUS_CERT": "/nonexistent/nexus.crt"},
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert run.returncode == 1
    assert "the certificate /nonexistent/nexus.crt is missing" in run.stderr


def test_install_again_keeps_what_was_made(suite: Path, core: Program) -> None:
    settings = core.directory / ".flaskenv"
    settings.write_text("KEYCLOAK_REALM=mine\n", encoding="utf-8")
    key = (core.directory / "keys/private.pem").read_bytes()
    (core.directory / "run.py").write_text("old", encoding="utf-8")
    subprocess.run([CHECKOUT / "tests/suite/install", suite, "core"], check=True)
    assert settings.read_text(encoding="utf-8") == "KEYCLOAK_REALM=mine\n"
    assert (core.directory / "keys/private.pem").read_bytes() == key
    assert (core.directory / "run.py").read_bytes() == (CHECKOUT / "tests/suite/core/run.py").read_bytes()
