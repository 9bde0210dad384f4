"""How helmd sees a page through the gateway: a login over a real connection, other processes, hostile answers; when."""

import html
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from helmd.model.identity.injected import NOTHING_INJECTED, PROBE_PATH, source_of
from helmd.model.identity.peer import Peer, Place
from helmd.model.identity.realm import PROBE_USER
from helmd.model.layout import layout
from helmd.model.suite.service import Registry, Service
from helmd.operations.identity.gateway_login import Gateway, GatewayBrowser, GatewayPageError, ProbeRefusedError
from helmd.operations.identity.gateway_page import (
    LEARN_AGAIN_SECONDS,
    PAUSES,
    REFUSED_SECONDS,
    GatewayPages,
)
from tests.waiting import WITHIN

UNIT = "hivematrix-nexus.service"
NEXUS = Peer(Place.HERE, "127.0.0.1", UNIT, owned=True)
PASSWORD = "Aa1-right & <proper>"
FORM = """<form action="/search"><input name="q"><input type="hidden" name="other" value="1"></form>
<form id="kc-form-login" action="{action}" method="post"><input type="hidden" name="credentialId" value="a&amp;b">
<input name="username"><input name="password" type="password"></form>"""


class SampleGateway(BaseHTTPRequestHandler):
    """Redirects to a login, as the real one does, and takes one password. `answers` are answers to paths instead."""

    server: "GatewayServer"

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        path, cookies = urlsplit(self.path).path, self.headers.get("Cookie", "")
        assert self.headers["Host"] == self.server.name
        if path in self.server.answers:
            self.connection.sendall(self.server.answers[path])
            self.close_connection = True
        elif path == "/keycloak/auth":
            assert "session=" not in cookies or "state" in cookies, cookies
            action = html.escape("/keycloak/login?code=1&tab=2")
            self._answer(200, FORM.format(action=action), cookies=("AUTH=1; Path=/keycloak; HttpOnly",))
        elif path == "/keycloak-callback":
            assert "AUTH" not in cookies, "that is for another path"
            self._answer(302, "", f"{PROBE_PATH}?", ("session=in; Path=/; HttpOnly",))
        elif path == PROBE_PATH and "session=in" in cookies:
            self.server.pages += 1
            self._answer(200, f"<p>{self.server.marker}</p>{self.server.added.format(page=self.server.pages)}")
        elif path == PROBE_PATH:
            self._answer(302, "", f"/login?next={PROBE_PATH}")
        elif path == "/login":
            self._answer(302, "", f"http://{self.server.name}/keycloak/auth?state=1", ("session=state; Path=/",))
        else:
            self._answer(404, "nothing")

    def do_POST(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        assert self.path == "/keycloak/login?code=1&tab=2" and "AUTH=1" in self.headers["Cookie"]
        assert (form["username"], form["credentialId"]) == ([PROBE_USER], ["a&b"])
        if form["password"] == [self.server.password]:
            self._answer(302, "", "/keycloak-callback?code=x", ("AUTH=; Max-Age=0; Path=/keycloak",))
        else:
            self._answer(200, FORM.format(action="/keycloak/login"))

    def _answer(self, status: int, text: str, location: str = "", cookies: tuple[str, ...] = ()) -> None:
        self.send_response(status)
        for cookie in cookies:
            self.send_header("Set-Cookie", cookie)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Not into the output of tests."""


class GatewayServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SampleGateway)
        self.name = f"localhost:{self.server_port}"
        self.asked: list[str] = []
        self.answers: dict[str, bytes] = {}
        self.added = "<script>1</script>"
        self.pages = 0
        self.marker = "marker"
        self.password = PASSWORD

    @property
    def gateway(self) -> Gateway:
        return Gateway(f"http://{self.name}", self.server_port, UNIT)

    def see(self, peer: Peer = NEXUS, password: str = PASSWORD, seconds: float = 10 * WITHIN) -> str:
        with GatewayBrowser(self.gateway, lambda _: peer, seconds) as browser:
            page = browser.see(PROBE_PATH, PROBE_USER, password)
            browser.leave()
            return page


@pytest.fixture
def server() -> Iterator[GatewayServer]:
    with GatewayServer() as made:
        serving = threading.Thread(target=made.serve_forever, args=(0.02,))
        serving.start()
        yield made
        made.shutdown()
        serving.join()


def test_a_login_as_a_browser_does_it(server: GatewayServer) -> None:
    """Cookies by their paths, the second form, its hidden fields, and redirects to the page."""
    assert server.see() == "<p>marker</p><script>1</script>"
    assert [re.sub(r"\?.*", "", each) for each in server.asked] == [
        f"GET {PROBE_PATH}",
        "GET /login",
        "GET /keycloak/auth",
        "POST /keycloak/login",
        "GET /keycloak-callback",
        f"GET {PROBE_PATH}",
        "GET /logout",
    ]


@pytest.mark.parametrize(
    ("peer", "who"),
    [
        (Peer(Place.HERE, "127.0.0.1", "hivematrix-codex.service", owned=True), "hivematrix-codex.service"),
        (Peer(Place.HERE, "127.0.0.1", UNIT, owned=False), UNIT),
        (Peer(Place.ELSEWHERE, "192.0.2.1"), "an unknown process"),
        (Peer(Place.UNKNOWN, "127.0.0.1"), "an unknown process"),
    ],
)
def test_a_module_that_answers_in_its_place_gets_nothing(server: GatewayServer, peer: Peer, who: str) -> None:
    with pytest.raises(GatewayPageError) as refused:
        server.see(peer)
    assert refused.value.sentence == (
        f"{who} answers on port {server.server_port}, not {UNIT}; no password was sent there"
    )
    assert server.asked == []


def test_a_wrong_password_is_distinguished(server: GatewayServer) -> None:
    with pytest.raises(ProbeRefusedError, match="the password is not valid"):
        server.see(password="wrong")
    assert server.asked.count("POST /keycloak/login?code=1&tab=2") == 1


def reply(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join((*lines, "", "")).encode() + body


@pytest.mark.parametrize(
    ("path", "answer", "sentence"),
    [
        ("/login", reply("HTTP/1.1 302 Found", "Location: http://localhost:1/"), "leads to another origin"),
        ("/login", reply("HTTP/1.1 302 Found", "Location: https://localhost/"), "leads to another origin"),
        ("/login", reply("HTTP/1.1 302 Found", "Location: http://[x/"), "an invalid URL"),
        ("/login", reply("HTTP/1.1 302 Found", "Location: /login"), "more than 12 redirects"),
        ("/login", reply("HTTP/1.1 302 Found", "Location: /a b\x01"), "does not answer"),
        ("/login", reply("HTTP/1.1 302 Found"), "more than 12 redirects"),
        ("/login", reply("HTTP/1.1 200 OK", body=b"x" * (3 << 20)), "longer than 2 MiB"),
        ("/login", reply("HTTP/1.1 200 OK", body=b"\xff\x00<form><input type=password"), "with 200 for /login"),
        ("/login", reply("HTTP/1.1 503 Busy", "Content-Length: 0"), "with 503 for /login"),
        ("/login", b"\x16\x03\x01", "does not answer"),
        ("/login", b"", "does not answer"),
        ("/login", reply("HTTP/1.1 200 OK", *(f"A{n}: 1" for n in range(200))), "does not answer"),
        ("/login", reply("HTTP/1.1 200 OK", f"A: {'x' * 70_000}"), "does not answer"),
        ("/keycloak/auth", reply("HTTP/1.1 200 OK", body=b"<form action='http://evil.example/'><input type=password>"
                                 b"</form>"), "leads to another origin (http://evil.example)"),
        ("/keycloak-callback", reply("HTTP/1.1 200 OK", body=b"Your account"), "with 200 for /keycloak-callback"),
    ],
)  # fmt: skip
def test_whatever_it_answers_is_a_sentence(server: GatewayServer, path: str, answer: bytes, sentence: str) -> None:
    server.answers[path] = answer
    with pytest.raises(GatewayPageError) as failed:
        server.see()
    assert sentence in failed.value.sentence and len(failed.value.sentence) < 400


def test_a_gateway_that_answers_a_byte_now_and_then_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection = listener.accept()[0]
            with connection:
                try:
                    for byte in b"HTTP/1.1 200 OK\r\nA: " + b"x" * 20_000:
                        connection.send(bytes([byte]))
                        time.sleep(0.02)
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        port = listener.getsockname()[1]
        begun = time.monotonic()
        with GatewayBrowser(Gateway(f"http://localhost:{port}", port, UNIT), lambda _: NEXUS, 0.5) as browser:
            with pytest.raises(GatewayPageError, match=r"took longer than 0\.5 s"):
                browser.see(PROBE_PATH, PROBE_USER, PASSWORD)
        assert time.monotonic() - begun < WITHIN
        dripping.join()


def test_many_and_large_cookies_are_not_kept(server: GatewayServer) -> None:
    cookies = [f"Set-Cookie: c{n}={'x' * (9 << 10 if n == 3 else 5)}; Path=/" for n in range(90)]
    server.answers["/login"] = reply("HTTP/1.1 302 Found", "Location: /keycloak/auth", *cookies)
    with GatewayBrowser(server.gateway, lambda _: NEXUS, 10 * WITHIN) as browser:
        with pytest.raises(GatewayPageError):
            browser.see("/login", PROBE_USER, PASSWORD)
        assert len(browser._cookies) <= 41 and ("c3", "/") not in browser._cookies


class Running:
    """Helmd's part, with a gateway whose runs and whose time a test decides."""

    def __init__(self, server: GatewayServer, tmp_path: Path) -> None:
        self.server = server
        self.places = layout({}, tmp_path, os.getuid(), tmp_path)
        self.places.secrets.mkdir(parents=True)
        self.places.probe_password.write_text(f"{PASSWORD}\n")
        url = f"http://{server.name}"
        self.suite = Registry({"nexus": Service("nexus", url=url, port=server.server_port)})
        self.invocation = "one"
        self.time = 1_800_000_000.0
        self.pages = self.begin()

    def begin(self) -> GatewayPages:
        made = GatewayPages(
            self.places, lambda: self.suite, lambda: self.invocation, lambda _: NEXUS, lambda: self.time
        )
        made._page = made._stored()
        self.server.marker = made.marker
        return made

    async def look(self) -> int:
        """Look once; return the number of pages requested."""
        before = self.server.pages
        await self.pages.look()
        return self.server.pages - before


@pytest.fixture
def running(server: GatewayServer, tmp_path: Path) -> Running:
    return Running(server, tmp_path)


async def test_it_learns_once_for_each_run_of_the_gateway(running: Running) -> None:
    assert running.pages.injected == NOTHING_INJECTED
    assert await running.look() == 2 and running.pages.injected.scripts == (source_of("1"),)
    assert await running.look() == 0
    assert running.places.gateway_page.stat().st_mode & 0o777 == 0o600
    # Another helmd, and the same gateway.
    running.pages = running.begin()
    assert await running.look() == 0 and running.pages.injected.scripts == (source_of("1"),)
    running.server.added = "<script>2</script><script>{page}</script>"
    running.invocation = "two"
    assert await running.look() == 2 and running.pages.injected.scripts == (source_of("2"),)
    assert running.pages.injected.blocked == ("the script that begins with “3” differs by user or session",)
    running.time += LEARN_AGAIN_SECONDS + 1
    assert await running.look() == 2


async def test_a_gateway_that_is_not_there_is_not_asked(running: Running) -> None:
    running.invocation = ""
    assert await running.look() == 0
    running.invocation = "one"
    running.suite = Registry({"nexus": replace(running.suite["nexus"], type="external", port=None)})
    assert await running.look() == 0
    running.suite = Registry({})
    assert await running.look() == 0 and not running.places.gateway_page.exists()


async def test_unknown_means_nothing_until_an_attempt_succeeds(running: Running) -> None:
    """What was learned of the run before is given up, and tried again after growing pauses."""
    assert await running.look() == 2
    running.invocation, running.server.marker = "two", "another page"
    for pause in (*PAUSES, PAUSES[-1]):
        asked = len(running.server.asked)
        assert await running.look() == 2 and running.pages.injected == NOTHING_INJECTED
        running.time += pause - 1
        assert await running.look() == 0
        running.time += 2
        assert len(running.server.asked) > asked
    assert '"trouble": "the gateway\'s answer can\'t be used: it did not pass on' in (
        running.places.gateway_page.read_text()
    )
    running.server.marker = running.pages.marker
    assert await running.look() == 2 and running.pages.injected.scripts == (source_of("1"),)


async def test_a_refused_password_is_not_tried_again_before_it_is_another(running: Running) -> None:
    running.places.probe_password.write_text("wrong\n")
    assert await running.look() == 0
    posts = [each for each in running.server.asked if each.startswith("POST")]
    assert len(posts) == 1
    running.time += REFUSED_SECONDS - 1
    assert await running.look() == 0
    assert [each for each in running.server.asked if each.startswith("POST")] == posts
    running.places.probe_password.unlink()
    assert await running.look() == 0
    assert '"hint": "Run: helmctl keycloak setup"' in running.places.gateway_page.read_text()
    running.places.probe_password.write_text(PASSWORD)
    assert await running.look() == 2


async def test_a_file_that_was_changed_is_replaced(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    running.places.gateway_page.parent.mkdir(parents=True)
    running.places.gateway_page.write_text('{"injected": {"scripts": ["\'unsafe-inline\'"]}}')
    running.pages = running.begin()
    assert running.pages.injected == NOTHING_INJECTED and "can't be used" in caplog.text
    assert await running.look() == 2
