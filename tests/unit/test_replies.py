"""The check of replies that system tests get by curl: it finds the route, the document, and what is wrong with it."""

import json
from typing import Any

import pytest

from tests.replies import faults_in_output

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
