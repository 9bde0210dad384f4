"""The check of replies that system tests get by curl: it finds the route, the document, and what is wrong with it."""

import json
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.replies import faults_in_output, faults_in_reply, faults_noted
from tests.suite.faulty import noting

SOCKET = ("curl", "-sS", "--unix-socket", "/run/user/1000/hivematrix/helm.sock")
TOKENS: Any = {"tokens": []}
PROBLEM: Any = {"type": "/docs/problems/denied", "title": "Forbidden", "status": 403, "detail": "no"}
PROBLEM |= {"instance": "/api/tokens", "code": "denied", "error": "no"}


@pytest.mark.parametrize(
    ("words", "stdin", "output"),
    [
        ((*SOCKET, "http://helm/api/tokens"), None, "{}"),
        ((*SOCKET, "-w", "\\n%{http_code}", "http://helm/api/tokens?x=1"), None, "{}\n200"),
        (
            ("curl", "--config", "-"),
            'url = "http://localhost:5004/helm/api/tokens"',
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}",
        ),
        (("bash", "-c", "curl -s http://127.0.0.1:5004/api/jobs/7"), None, '{"id": 7}'),
        ((*SOCKET, "-X", "POST", "http://helm/api/tokens"), None, json.dumps(TOKENS)),
        ((*SOCKET, "http://helm/api/tokens"), None, json.dumps({**PROBLEM, "status": "403"})),
    ],
)
def test_what_the_document_does_not_say_is_found(words: tuple[str, ...], stdin: str | None, output: str) -> None:
    assert faults_in_output(words, stdin, output)


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ((*SOCKET, "http://helm/api/tokens"), json.dumps(TOKENS)),
        ((*SOCKET, "http://helm/api/tokens"), json.dumps(PROBLEM)),
        ((*SOCKET, "http://helm/api/tokens", "http://helm/api/jobs"), "{}"),
        ((*SOCKET, "http://helm/nosuch"), "{}"),
        (("curl", "http://127.0.0.1:5000/api/tokens"), "{}"),
        (("cat", "http://helm/api/tokens"), "{}"),
        ((*SOCKET, "http://helm/api/tokens"), '{"tokens": ['),
    ],
)
def test_all_else_passes(words: tuple[str, ...], output: str) -> None:
    assert faults_in_output(words, None, output) == []


@pytest.mark.parametrize(
    ("path", "status", "media", "body", "allowed"),
    [
        ("/api/tokens", 200, "application/json", TOKENS, True),
        ("/helm/api/tokens", 200, "application/json", TOKENS, True),
        ("/api/tokens", 403, "application/problem+json", PROBLEM, True),
        ("/helm/", 200, "text/html", "<p>", True),
        ("/api/tokens", 200, "application/json", {}, False),
        ("/api/tokens", 202, "application/json", TOKENS, False),
        ("/api/tokens", 403, "application/problem+json", {"code": "denied"}, False),
    ],
)
def test_a_reply_is_held_against_the_document(path: str, status: int, media: str, body: object, allowed: bool) -> None:
    assert (faults_in_reply("GET", path, status, media, json.dumps(body)) == []) is allowed


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"{}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return ""


ASK = """
import http.client, socket, sys
connection = http.client.HTTPConnection("helm")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
for _ in range(30):
    connection.request("GET", "/api/tokens?x=1")
    print(connection.getresponse().read().decode())
"""


def test_replies_to_a_program_are_noted(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socketserver.UnixStreamServer(path, Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, noting.__file__, "-c", ASK, path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        server.shutdown()
    assert done.stdout == "{}\n" * 30
    assert len(faults_noted(done.stderr)) == noting.MOST
    assert all("'tokens' is a required property" in fault for fault in faults_noted(done.stderr))
    assert faults_noted("") == faults_noted("an error\n") == []
