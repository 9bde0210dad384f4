"""packaging/client/helm_logger.py with a real HTTP server in place of Helm and Core."""

from __future__ import annotations

import ast
import base64
import collections
import http.server
import importlib.util
import json
import logging
import math
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import WITHIN, until

TOP = Path(__file__).resolve().parents[2]
SOURCE = TOP / "packaging/client/helm_logger.py"
README = TOP / "packaging/client/README.md"
HOURS = 3600.0
"""An interval longer than any test, so that requests have another reason."""
LONG_WAITS = {"interval": HOURS, "timeout": WITHIN}


def load() -> Any:
    """Import the file as a separate module, as each service does."""
    spec = importlib.util.spec_from_file_location("helm_logger", SOURCE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


helm_logger = load()
HelmLogger, HelmLogHandler = helm_logger.HelmLogger, helm_logger.HelmLogHandler


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    port: int

    @property
    def entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(self.body)["logs"]
        return entries

    @property
    def key(self) -> str:
        return self.headers["Idempotency-Key"]


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    hang: bool = False
    close: bool = False
    """Close the connection without announcing it; with status 0, before any response."""


OK = Answer(body=b'{"success": true, "ingested": 1, "message": ""}')
AWAY = Answer(503)


def token(life: float = 300.0, number: int = 0) -> str:
    claims = json.dumps({"iat": 1795412349, "exp": 1795412349 + life, "n": number})
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in ("{}", claims, "sign"))


class StandIn:
    """A server that records requests and sends each of ``answers`` once, then ``usual``."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.asked_tokens: list[Request] = []
        self.answers: collections.deque[Answer] = collections.deque()
        self.usual = OK
        self.token_answers: collections.deque[Answer] = collections.deque()
        self.token_life = 300.0
        self.released = threading.Event()
        self.closed = 0
        """How many connections it has closed."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Request(self.path, dict(self.headers), body, time.monotonic(), self.client_address[1])
                answer = outer.answer(request)
                if answer.hang:
                    outer.released.wait(10 * WITHIN)
                if answer.close:
                    self.close_connection = True
                if answer.status and not answer.hang:
                    self.send_response(answer.status)
                    self.send_header("Content-Length", str(len(answer.body)))
                    for name, value in answer.headers:
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def shutdown_request(self, request: Any) -> None:
                super().shutdown_request(request)
                outer.closed += 1

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away meanwhile is what some tests are about."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: Request) -> Answer:
        if request.path.endswith("/service-token"):
            self.asked_tokens.append(request)
            if self.token_answers:
                return self.token_answers.popleft()
            text = token(self.token_life, len(self.asked_tokens))
            return Answer(body=json.dumps({"token": text}).encode())
        answer = self.answers.popleft() if self.answers else self.usual
        self.requests.append(request)
        return answer

    @property
    def stored(self) -> list[dict[str, Any]]:
        """Entries of all requests, those of a repeated Idempotency-Key once, as Helm keeps them."""
        return [
            entry
            for request in {request.key: request for request in self.requests}.values()
            for entry in request.entries
        ]

    @property
    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.stored]

    def stop(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def helm() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.stop()


@pytest.fixture
def core() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.stop()


@pytest.fixture(autouse=True, params=["requests", "plain"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test with both HTTP implementations, with short pauses and without CORE_SERVICE_URL."""
    if request.param == "plain":
        monkeypatch.setattr(helm_logger, "requests", None)
    else:
        assert helm_logger.requests is not None
    monkeypatch.setattr(helm_logger, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(helm_logger, "MIN_PAUSE", 0.01)
    # A busy machine may take longer than the 5 s that they wait by default.
    for waits in (HelmLogger.flush, HelmLogger.shutdown):
        monkeypatch.setattr(waits, "__defaults__", (WITHIN,))
    monkeypatch.delenv("CORE_SERVICE_URL", raising=False)
    return str(request.param)


@pytest.fixture
def make(helm: StandIn) -> Iterator[Callable[..., Any]]:
    made = []

    def make(**settings: Any) -> Any:
        made.append(HelmLogger("codex", settings.pop("helm_url", helm.url), **{**LONG_WAITS, **settings}))
        return made[-1]

    yield make
    helm.released.set()
    for logger in made:
        logger.shutdown(0.2)


def sent(helm: StandIn, logger: Any) -> dict[str, Any]:
    """Return the only entry that Helm received."""
    assert logger.flush()
    (entry,) = helm.stored
    return entry


# Batches


def test_ten_entries_make_a_request(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()
    for number in range(10):
        logger.info(f"line {number}")
    until(lambda: helm.requests)
    assert logger.flush()
    (request,) = helm.requests
    assert request.path == "/api/logs/ingest"
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body)["service_name"] == "codex"
    assert [entry["message"] for entry in request.entries] == [f"line {number}" for number in range(10)]


def test_fewer_entries_wait_for_the_interval(helm: StandIn, make: Callable[..., Any]) -> None:
    begun = time.monotonic()
    logger = make(interval=0.2)
    logger.info("one")
    logger.info("two")
    until(lambda: helm.requests)
    assert helm.messages == ["one", "two"]
    assert helm.requests[0].at - begun >= 0.2


def test_the_defaults_are_ten_entries_and_five_seconds() -> None:
    logger = HelmLogger("codex", "http://127.0.0.1:1")
    assert (logger._batch_size, logger._interval) == (10, 5.0)
    logger.shutdown()


def test_entries_queued_during_an_outage_are_sent_in_large_batches(helm: StandIn, make: Callable[..., Any]) -> None:
    helm.usual = AWAY
    logger = make()
    for number in range(1200):
        logger.info(str(number))
    until(lambda: helm.requests)
    helm.usual = OK
    until(logger.flush)
    assert helm.messages == [str(number) for number in range(1200)]
    assert len({request.key for request in helm.requests}) <= 5
    assert max(len(request.entries) for request in helm.requests) <= 500


def test_the_size_of_a_request_is_limited(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()
    for _ in range(9):
        logger.info("x" * 300_000)
    logger.info("y" * 900_000)
    assert logger.flush()
    assert [len(request.body) // 300_000 for request in helm.requests] == [1] * 9 + [3]


def test_connections_are_persistent(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()
    for _ in range(3):
        logger.info("x")
        assert logger.flush()
    assert len({request.port for request in helm.requests}) == 1


def test_a_connection_closed_while_idle_is_not_a_failure(
    helm: StandIn, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("FIRST_PAUSE", "MIN_PAUSE"):
        monkeypatch.setattr(helm_logger, pause, 60.0)
    helm.usual = Answer(close=True)
    logger = make()

    def closed_more_than(number: int) -> bool:
        return helm.closed > number

    for number in range(3):
        logger.info(str(number))
        assert logger.flush()
        # urllib3 looks for the server's FIN before it sends.
        until(partial(closed_more_than, number), pause=0.01)
    assert helm.messages == ["0", "1", "2"]
    assert len(helm.requests) == 3


# Entries


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_an_entry_has_all_fields(helm: StandIn, make: Callable[..., Any], level: str) -> None:
    logger = make()
    before = datetime.now(UTC)
    getattr(logger, level)("Grüße\n", {"n": 1, "nest": {"a": [1, 2.5, None, True]}}, "t-1", "user@example.com")
    entry = sent(helm, logger)
    at = entry.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", at)
    assert before <= datetime.fromisoformat(at.replace("Z", "+00:00")) <= datetime.now(UTC)
    assert entry == {
        "level": level.upper(),
        "message": "Grüße\n",
        "context": {"n": 1, "nest": {"a": [1, 2.5, None, True]}},
        "trace_id": "t-1",
        "user_id": "user@example.com",
        "hostname": socket.gethostname(),
        "process_id": os.getpid(),
    }


def test_fields_not_given_are_absent(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()
    logger.info("plain")
    assert set(sent(helm, logger)) == {"level", "message", "timestamp", "hostname", "process_id"}


class Bad:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Texts:
    def __str__(self) -> str:
        return "as text"


ROUND: list[Any] = [1]
ROUND.append(ROUND)
DEEP: Any = "end"
for _ in range(3000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Texts(), "as text"),
        (Bad(), "<Bad without text>"),
        (ValueError("wrong"), "wrong"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC), "2026-11-24T01:02:03+00:00"),
        (b"bytes\xff", "bytes\N{REPLACEMENT CHARACTER}"),
        ({1}, [1]),
        ((1, 2), [1, 2]),
        (math.nan, "nan"),
        ([math.inf, -math.inf, 1.0], ["inf", "-inf", 1.0]),
        ({(1, 2): Texts(), "x": Bad()}, {"(1, 2)": "as text", "x": "<Bad without text>"}),
        ("lone \ud800 and whole \U0001f600", "lone \N{REPLACEMENT CHARACTER} and whole \U0001f600"),
        ("pair \ud83d\ude00", "pair \U0001f600"),
        ("nul \0 \x1b[31m", "nul \0 \x1b[31m"),
        (10**5000, "<int without text>" if hasattr(sys, "get_int_max_str_digits") else 10**5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_json_does_not_support_become_text(
    helm: StandIn, make: Callable[..., Any], value: Any, arrives: Any
) -> None:
    logger = make()
    logger.info("value", context={"value": value, "other": 1})
    assert sent(helm, logger)["context"] == {"value": arrives, "other": 1}
    assert b"NaN" not in helm.requests[0].body and b"Infinity" not in helm.requests[0].body


@pytest.mark.parametrize("value", [ROUND, DEEP, {"all": [ROUND] * 1000}], ids=["round", "deep", "round often"])
def test_infinite_values_are_truncated(helm: StandIn, make: Callable[..., Any], value: Any) -> None:
    logger = make()
    logger.info("value", context={"value": value})
    assert set(sent(helm, logger)["context"]) == {"value"}
    assert len(helm.requests[0].body) < 5_000_000


@pytest.mark.parametrize(
    ("message", "arrives"),
    [
        (None, "None"),
        (7, "7"),
        (b"raw\xff", "raw\N{REPLACEMENT CHARACTER}"),
        (Bad(), "<Bad without text>"),
        ("", ""),
    ],
)
def test_messages_that_are_not_strings(helm: StandIn, make: Callable[..., Any], message: Any, arrives: str) -> None:
    logger = make()
    logger.info(message, trace_id=uuid.UUID(int=7), user_id=42)
    entry = sent(helm, logger)
    assert (entry["message"], entry["trace_id"], entry["user_id"]) == (arrives, str(uuid.UUID(int=7)), "42")


def test_a_context_that_is_not_a_dictionary(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()
    logger.info("x", context=["a"])
    assert sent(helm, logger)["context"] == {"context": ["a"]}


def test_values_are_captured_at_the_time_of_the_call(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()
    context = {"step": [1]}
    logger.info("x", context=context)
    context["step"].append(2)
    assert sent(helm, logger)["context"] == {"step": [1]}


def test_long_messages_and_contexts_are_truncated(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()
    logger.info("m" * 2_000_000, context={"n": 1})
    logger.info("x", context={"large": "ü" * 5_000_000})
    logger.info("x", trace_id="t" * 9_000_000)
    assert logger.flush()
    first, second = (entry for entry in helm.stored if not entry["message"].startswith("helm_logger dropped"))
    assert (len(first["message"]), first["context"]) == (1 << 20, {"n": 1, "message_length": 2_000_000})
    assert second["context"]["context_length"] > 10_000_000
    assert second["context"]["context_begin"].startswith('{"large":"üüü')
    assert logger.status()["dropped"] == 1


# Tokens


def test_the_token_is_requested_from_core(
    helm: StandIn, core: StandIn, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = make()
    monkeypatch.setenv("CORE_SERVICE_URL", core.url + "/")
    for _ in range(3):
        logger.info("x")
        assert logger.flush()
    (asked,) = core.asked_tokens
    assert asked.path == "/service-token"
    assert json.loads(asked.body) == {"calling_service": "codex", "target_service": "helm"}
    assert "Authorization" not in asked.headers
    assert [request.headers["Authorization"] for request in helm.requests] == [f"Bearer {token(number=1)}"] * 3


def test_helm_is_where_the_environment_says(
    helm: StandIn, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELM_SERVICE_URL", helm.url + "/")
    logger = make(helm_url=None)
    logger.info("x")
    assert sent(helm, logger)["message"] == "x"


def test_without_a_core_no_token_is_sent(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()
    helm.answers.append(Answer(401))
    logger.info("x")
    until(lambda: logger.flush(0.01) or "CORE_SERVICE_URL is not set" in logger.status()["last_error"])
    assert logger.flush()
    assert not [request for request in helm.requests if "Authorization" in request.headers]


def test_a_token_is_renewed_before_it_expires(helm: StandIn, core: StandIn, make: Callable[..., Any]) -> None:
    core.token_life = 0.5
    logger = make(core_url=core.url)
    logger.info("x")
    assert logger.flush()
    time.sleep(0.45)
    logger.info("x")
    assert logger.flush()
    assert [request.headers["Authorization"] for request in helm.requests] == [
        f"Bearer {token(0.5, number)}" for number in (1, 2)
    ]
    assert logger.status()["last_error"] == ""


def test_a_token_that_cannot_be_renewed_is_used_until_it_expires(
    helm: StandIn, core: StandIn, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helm_logger, "RENEWAL_PAUSE", HOURS)
    logger = make(core_url=core.url)
    logger.info("x")
    assert logger.flush()
    logger._token = logger._token._replace(renew_at=0.0)
    core.token_answers.append(AWAY)
    for _ in range(2):
        logger.info("x")
        assert logger.flush()
    assert len(core.asked_tokens) == 2
    assert {request.headers["Authorization"] for request in helm.requests} == {f"Bearer {token(number=1)}"}
    logger._token = logger._token._replace(renew_at=0.0, ends_at=0.0)
    logger.info("x")
    assert logger.flush()
    assert helm.requests[-1].headers["Authorization"] == f"Bearer {token(number=3)}"


def test_a_token_that_helm_rejects_is_renewed_once(helm: StandIn, core: StandIn, make: Callable[..., Any]) -> None:
    logger = make(core_url=core.url)
    helm.answers.append(Answer(401))
    logger.info("x")
    assert logger.flush()
    first, second = helm.requests
    assert (first.key, first.body) == (second.key, second.body)
    assert [request.headers["Authorization"] for request in helm.requests] == [
        f"Bearer {token(number=number)}" for number in (1, 2)
    ]
    assert logger.status() == {"waiting": 0, "sent": 1, "dropped": 0, "last_error": ""}


def test_entries_are_queued_while_tokens_are_rejected(helm: StandIn, core: StandIn, make: Callable[..., Any]) -> None:
    helm.usual = Answer(401, b'{"error": "This token is of another key."}')
    logger = make(core_url=core.url, interval=0)
    logger.info("x")
    until(lambda: len(helm.requests) >= 6)
    assert len(core.asked_tokens) <= len(helm.requests) // 2 + 2
    assert logger.status()["waiting"] == 1
    assert logger.status()["last_error"] == "Helm returned 401: This token is of another key."
    helm.usual = OK
    assert logger.flush()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(400, b'{"error": "Unknown calling_service"}'), "it returned 400: Unknown calling_service"),
        (Answer(500, b"<html>"), "it returned 500"),
        (Answer(200, b"<html>"), "its answer has none"),
        (Answer(200, b"[]"), "its answer has none"),
        (Answer(200, b'{"token": null}'), "its answer has none"),
        (Answer(200, b'{"token": "secret\\r\\nX-Evil: 1"}'), "its answer has none"),
        (Answer(302, headers=(("Location", "http://127.0.0.1:1/"),)), "it returned 302"),
        (Answer(0, close=True), "could not reach Core"),
    ],
)
def test_entries_are_queued_while_core_issues_no_token(
    helm: StandIn, core: StandIn, make: Callable[..., Any], answer: Answer, reason: str
) -> None:
    core.token_answers.extend([answer] * 2)
    logger = make(core_url=core.url)
    logger.info("x")
    until(lambda: logger.flush(0) or reason in logger.status()["last_error"])
    assert "secret" not in logger.status()["last_error"]
    until(lambda: helm.requests)
    assert len(helm.requests) == 1


# Helm away


@pytest.mark.parametrize(
    "answer",
    [Answer(503), Answer(500), Answer(404), Answer(0, close=True), Answer(hang=True), Answer(302), Answer(429)],
    ids=lambda answer: "hang" if answer.hang else str(answer.status),
)
def test_a_batch_is_retried_unchanged(helm: StandIn, make: Callable[..., Any], answer: Answer) -> None:
    helm.answers.extend([answer] * 3)
    logger = make(timeout=0.1 if answer.hang else WITHIN)
    logger.info("x")
    if answer.hang:
        until(lambda: logger.flush(0.01) or len(helm.requests) >= 3, pause=0.01)
        logger._timeout = WITHIN
    until(lambda: logger.flush() and len(helm.requests) >= 4)
    assert answer.hang or len(helm.requests) == 4
    assert len({(request.key, request.body) for request in helm.requests}) == 1
    assert logger.status() == {"waiting": 0, "sent": 1, "dropped": 0, "last_error": ""}
    logger.info("x")
    assert logger.flush()
    assert len({request.key for request in helm.requests}) == 2


def test_pauses_grow_with_jitter(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    logger = make()
    waits: list[float] = []
    now = 1000.0

    class Wakeup:
        def acquire(self, timeout: float) -> None:
            nonlocal now
            waits.append(timeout)
            now += timeout

        def release(self) -> None:
            pass

    monkeypatch.setattr(helm_logger, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(logger, "_wakeup", Wakeup())
    monkeypatch.setattr(helm_logger.time, "monotonic", lambda: now)
    for failures in range(1, 40):
        assert logger._pause(failures, None)
    monkeypatch.undo()
    limits = [min(30.0, 0.5 * 2**exponent) for exponent in range(39)]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, limits, strict=True))
    assert len(set(waits)) == len(waits)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_by_flush(helm: StandIn, make: Callable[..., Any], status: int) -> None:
    helm.answers.append(Answer(status, headers=(("Retry-After", "1"),)))
    logger = make()
    logger.info("x")
    assert not logger.flush(0.2)
    assert logger.flush()
    first, second = helm.requests
    assert second.at - first.at >= 0.99
    assert first.key == second.key


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.01),
        ("999999999", 300.0),
        ("soon", None),
        ("-1", None),
        ("9" * 5000, None),
        ("", None),
        (None, None),
        (format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True), 0.01),
        (format_datetime(datetime(2120, 1, 1, tzinfo=UTC), usegmt=True), 300.0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert helm_logger._retry_after(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    text = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < helm_logger._retry_after(text) < 61


@pytest.mark.parametrize("status", [400, 403, 413, 415, 422])
def test_refused_entries_are_dropped_and_reported_later(
    helm: StandIn, make: Callable[..., Any], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    helm.answers.extend([Answer(status, b'{"error": "No\\u001b[31m."}')] * 2)
    logger = make()
    for message in ("one", "two", "three"):
        logger.info(message)
        assert logger.flush()
    assert [len(request.entries) for request in helm.requests] == [1, 2, 2]
    notice, entry = helm.requests[-1].entries
    assert entry["message"] == "three"
    assert (notice["level"], notice["message"]) == ("WARNING", "helm_logger dropped 2 log entries")
    assert notice["context"] == {"dropped": 2, "reasons": {f"Helm returned {status}: No\x1b[31m.": 2}}
    assert notice["process_id"] == os.getpid()
    assert logger.status() == {"waiting": 0, "sent": 1, "dropped": 2, "last_error": ""}
    assert capsys.readouterr().err == f"helm_logger: codex: log entries are dropped: Helm returned {status}: No?[31m.\n"


def test_the_queue_is_bounded_and_the_newest_are_kept(helm: StandIn, make: Callable[..., Any]) -> None:
    helm.usual = AWAY
    logger = make(queue_size=20, interval=0)
    logger.info("in flight")
    until(lambda: helm.requests)
    for number in range(100):
        logger.info(str(number))
    assert logger.status()["waiting"] == 21
    helm.usual = OK
    assert logger.flush()
    assert helm.messages == [
        "in flight",
        "helm_logger dropped 80 log entries",
        *(str(number) for number in range(80, 100)),
    ]
    assert helm.stored[1]["context"] == {"dropped": 80, "reasons": {"the queue was full": 80}}
    logger.info("later")
    assert logger.flush()
    assert helm.requests[-1].entries[0]["message"] == "later"


def test_the_queue_is_bounded_in_bytes(
    helm: StandIn, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helm_logger, "QUEUE_BYTES", 50_000)
    helm.usual = AWAY
    logger = make(interval=0)
    logger.info("in flight")
    until(lambda: helm.requests)
    for _ in range(100):
        logger.info("x" * 10_000)
    assert logger.status()["waiting"] == 1 + 4
    helm.usual = OK
    assert logger.flush()
    assert logger._queue_bytes == 0


@pytest.mark.parametrize("url", ["", "localhost:5004", "ftp://x", "http://", "http://[", "http://127.0.0.1:99999", 7])
def test_no_url_raises_into_the_service(make: Callable[..., Any], url: Any) -> None:
    logger = make(helm_url=url)
    logger.info("x")
    assert not logger.flush(0.05)
    until(lambda: logger.status()["last_error"])
    logger.shutdown(1)
    assert logger.status()["waiting"] == 1


def test_no_call_blocks_on_helm(helm: StandIn, make: Callable[..., Any]) -> None:
    helm.usual = Answer(hang=True)
    logger = make(timeout=10 * WITHIN, interval=0)
    logger.info("x")
    until(lambda: helm.requests)
    for _ in range(1000):
        logger.info("x")
    assert len(helm.requests) == 1 and logger.status()["waiting"] == 1001


def test_an_outage_is_reported_once_on_stderr(
    helm: StandIn, make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    helm.answers.extend([AWAY] * 6)
    logger = make()
    logger.info("x")
    until(lambda: logger.flush())
    line = "helm_logger: codex: log entries are queued and will be sent later: Helm returned 503\n"
    assert capsys.readouterr().err == line
    helm.answers.extend([AWAY] * 3)
    logger.info("x")
    until(lambda: logger.flush())
    assert capsys.readouterr().err == line, "another outage is reported again"


def test_the_token_is_sent_to_helm_only(
    helm: StandIn, core: StandIn, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not to a proxy and not after a redirect; and .netrc does not replace it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login evil password evil\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, core.url)
    helm.answers.append(Answer(307, headers=(("Location", f"{core.url}/api/logs/ingest"),)))
    logger = make(core_url=core.url)
    logger.info("x")
    assert logger.flush()
    assert {request.headers["Authorization"] for request in helm.requests} == {f"Bearer {token(number=1)}"}
    assert core.requests == []
    assert [request.path for request in core.asked_tokens] == ["/service-token"]


# Threads, ends, forks


def test_threads_neither_lose_nor_duplicate_entries(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()

    def work(name: int) -> None:
        for number in range(300):
            logger.info(f"{name} {number}")
            if number % 100 == 50:
                logger.flush()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logger.flush()
    assert sorted(helm.messages) == sorted(f"{name} {number}" for name in range(6) for number in range(300))


def test_shutdown_sends_queued_entries_and_stops_the_thread(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()
    logger.info("x")
    logger.shutdown()
    assert helm.messages == ["x"]
    assert not logger._thread.is_alive()
    logger.info("late")
    logger.shutdown()
    assert logger.flush(30)
    assert logger.status() == {"waiting": 0, "sent": 1, "dropped": 1, "last_error": ""}


def test_shutdown_gives_up_if_helm_is_unavailable(make: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    logger = make(helm_url="http://127.0.0.1:1")
    logger.info("x")
    begun = time.monotonic()
    logger.shutdown(2 * WITHIN)
    assert time.monotonic() - begun < WITHIN
    assert not logger.flush(30)
    assert logger.status()["waiting"] == 1
    assert capsys.readouterr().err.startswith("helm_logger: codex: 1 entry was not sent: could not reach Helm: ")


def test_shutdown_is_bounded(helm: StandIn, make: Callable[..., Any]) -> None:
    helm.usual = Answer(hang=True)
    logger = make(timeout=2 * WITHIN)
    logger.info("x")
    until(lambda: logger.flush(0.01) or helm.requests)
    begun = time.monotonic()
    logger.shutdown(0.1)
    assert time.monotonic() - begun < WITHIN


def test_shutdown_sends_without_a_thread(
    helm: StandIn, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("helm-logger"):
            raise RuntimeError("can't start new thread")
        start(thread)

    logger = make()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        logger.info("one")
        logger.info("two")
        assert not logger.flush(30)
        logger.shutdown()
    assert helm.messages == ["one", "two"]


WITHOUT_HASTE = f"""
import helm_logger
for waits in (helm_logger.HelmLogger.flush, helm_logger.HelmLogger.shutdown):
    waits.__defaults__ = ({WITHIN},)
helm_logger.HelmLogger.__init__.__kwdefaults__["timeout"] = {WITHIN}
"""


def run(code: str, helm: StandIn, transport: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the code in a separate process, where the logger has more time than by default."""
    hide = "import sys\nsys.modules['requests'] = None\n" if transport == "plain" else ""
    whole = hide + WITHOUT_HASTE + textwrap.dedent(code).replace("http://localhost:5004", helm.url)
    return subprocess.run(
        [sys.executable, "-c", whole],
        capture_output=True,
        text=True,
        timeout=2 * WITHIN,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCE.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
    )


def test_queued_entries_are_sent_at_exit(helm: StandIn, transport: str) -> None:
    done = run(
        """
        from helm_logger import HelmLogger
        logger = HelmLogger("codex", "http://localhost:5004")
        logger.info("last words")
        raise SystemExit(3)
        """,
        helm,
        transport,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert helm.messages == ["last words"]


def test_exit_is_not_delayed_by_debug_logging(helm: StandIn, transport: str) -> None:
    """logging.shutdown() holds the handler's lock in flush() while the sender logs urllib3's debug record."""
    done = run(
        """
        import atexit, logging, time
        from helm_logger import HelmLogHandler
        handler = HelmLogHandler("codex", "http://localhost:5004")
        atexit.unregister(handler.logger.shutdown)  # logging's own exit handler is the one left
        logging.basicConfig(level=logging.DEBUG, handlers=[handler])
        logging.info("last words")
        begun = time.monotonic()
        logging.shutdown()
        print(time.monotonic() - begun)
        """,
        helm,
        transport,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert helm.messages == ["last words"]
    assert float(done.stdout) < WITHIN / 2, "it went on when flush() gave up"


def test_entries_of_later_exit_handlers_do_not_delay_exit(helm: StandIn, transport: str) -> None:
    done = run(
        """
        import atexit
        atexit.register(lambda: logger.info("after the end"))
        from helm_logger import HelmLogger
        logger = HelmLogger("codex", "http://localhost:5004")
        """,
        helm,
        transport,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert helm.requests == []


def test_a_signal_handler_may_log_during_logging(helm: StandIn, transport: str) -> None:
    done = run(
        """
        import signal, time
        from helm_logger import HelmLogger
        logger = HelmLogger("codex", "http://localhost:5004", queue_size=100000)
        signals = []
        def on_signal(*_):
            signals.append(None)  # += 1 would lose some to a signal in between
            logger.warning("signal")
        signal.signal(signal.SIGALRM, on_signal)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        lines = 0
        end = time.monotonic() + 0.7
        while time.monotonic() < end or len(signals) <= 10:
            lines += 1
            logger.info("line")
        signal.setitimer(signal.ITIMER_REAL, 0, 0)
        assert logger.flush()
        print(lines, len(signals))
        """,
        helm,
        transport,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines, signals = map(int, done.stdout.split())
    assert signals > 10
    assert collections.Counter(helm.messages) == {"line": lines, "signal": signals}


def test_a_forked_child_sends_only_its_own_entries(helm: StandIn, core: StandIn, transport: str) -> None:
    """Like gunicorn with --preload: the logger is created and used before the fork."""
    done = run(
        """
        import os, sys, threading, warnings
        warnings.simplefilter("ignore")  # later Pythons warn of a fork if there are threads, which is the point here
        from helm_logger import HelmLogger
        logger = HelmLogger("codex", "http://localhost:5004", interval=3600)
        logger.info("sent before")
        assert logger.flush()
        logger.info("waiting at the fork")
        children = []
        held, done = threading.Event(), threading.Event()
        def hold():
            with logger._lock:
                held.set()
                done.wait()
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        for name in "ab":
            pid = os.fork()
            if not pid:
                for number in range(25):
                    logger.info(f"child {name} {number}")
                sys.exit(0)  # its exit handlers send
            children.append(pid)
        done.set()
        holder.join()
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        logger.info("after")
        print(os.getpid(), *children)
        """,
        helm,
        transport,
        CORE_SERVICE_URL=core.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    parent, first, second = map(int, done.stdout.split())
    found = collections.defaultdict(list)
    for entry in helm.stored:
        found[entry["process_id"]].append(entry["message"])
    assert found == {
        parent: ["sent before", "waiting at the fork", "after"],
        first: [f"child a {number}" for number in range(25)],
        second: [f"child b {number}" for number in range(25)],
    }
    ports = collections.defaultdict(set)
    for request in helm.requests:
        ports[request.port].add(request.entries[0]["process_id"])
    assert all(len(pids) == 1 for pids in ports.values()), "processes share no connection"


# logging


@pytest.fixture
def log(helm: StandIn, make: Callable[..., Any]) -> Iterator[Any]:
    """Yield a logging.Logger whose records are sent to Helm."""
    handler = HelmLogHandler(make())
    log = logging.Logger("test", 1)
    log.addHandler(handler)
    log.helm = handler.logger  # type: ignore[attr-defined]
    yield log
    handler.close()
    log.removeHandler(handler)


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (5, "DEBUG"),
        (10, "DEBUG"),
        (20, "INFO"),
        (25, "INFO"),
        (30, "WARNING"),
        (40, "ERROR"),
        (50, "CRITICAL"),
        (99, "CRITICAL"),
    ],
)
def test_levels_of_logging(helm: StandIn, log: Any, number: int, level: str) -> None:
    log.log(number, "x")
    entry = sent(helm, log.helm)
    assert entry["level"] == level
    assert entry["context"].get("level") == (None if logging.getLevelName(number) == level else f"Level {number}")


def test_a_record_becomes_an_entry(helm: StandIn, log: Any) -> None:
    before = time.time()
    log.warning("%s is %d", "x", 7, extra={"trace_id": "t", "user_id": "u", "path": "/a", "method": "GET"})
    entry = sent(helm, log.helm)
    at = datetime.fromisoformat(entry["timestamp"].replace("Z", "+00:00")).timestamp()
    assert before - 0.001 <= at <= time.time()
    assert (entry["message"], entry["trace_id"], entry["user_id"]) == ("x is 7", "t", "u")
    line = entry["context"].pop("line")
    assert isinstance(line, int)
    assert entry["context"] == {
        "logger": log.name,
        "file": __file__,
        "function": "test_a_record_becomes_an_entry",
        "path": "/a",
        "method": "GET",
    }


@pytest.mark.parametrize(
    ("extra", "trace"),
    [
        ({"correlation_id": "c"}, "c"),
        ({"request_id": 7}, "7"),
        ({"trace_id": None, "correlation_id": "c"}, "c"),
        ({"trace_id": "", "request_id": "r"}, "r"),
        ({"otelTraceID": "4bf92f3577b34da6a3ce929d0e0e4736"}, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ({"otelTraceID": "0"}, None),
        ({}, None),
    ],
)
def test_a_records_own_trace_ids(helm: StandIn, log: Any, extra: dict[str, Any], trace: str | None) -> None:
    log.info("x", extra=extra)
    assert sent(helm, log.helm).get("trace_id") == trace


def test_exceptions_and_stacks(helm: StandIn, log: Any) -> None:
    try:
        raise KeyError("missing")
    except KeyError:
        log.exception("It failed", stack_info=True)
    entry = sent(helm, log.helm)
    assert (entry["level"], entry["message"]) == ("ERROR", "It failed")
    assert entry["context"]["exception"].startswith("Traceback (most recent call last):\n")
    assert entry["context"]["exception"].endswith("KeyError: 'missing'")
    assert entry["context"]["stack"].startswith("Stack (most recent call last):\n")


def test_exc_info_without_exception_is_ignored(helm: StandIn, log: Any) -> None:
    log.error("x", exc_info=True)
    assert "exception" not in sent(helm, log.helm)["context"]


def test_a_context_in_the_extra_fields_is_merged(helm: StandIn, log: Any) -> None:
    log.info("x", extra={"context": {"a": 1, "line": "mine"}, "bad": Bad()})
    context = sent(helm, log.helm)["context"]
    assert (context["a"], context["line"], context["bad"]) == (1, "mine", "<Bad without text>")


def test_arguments_that_do_not_match_the_format(helm: StandIn, log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log.info("%d things", "many")
    entry = sent(helm, log.helm)
    assert (entry["message"], entry["context"]["args"]) == ("%d things", ["many"])
    assert capsys.readouterr().err == ""


def test_filters_are_applied_and_formatters_are_not(helm: StandIn, log: Any) -> None:
    def mark(record: logging.LogRecord) -> bool:
        record.mark = 1
        return record.getMessage() != "not this"

    log.handlers[0].setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    log.handlers[0].addFilter(mark)
    log.info("not this")
    log.info("this")
    entry = sent(helm, log.helm)
    assert (entry["message"], entry["context"]["mark"]) == ("this", 1)


def test_a_handler_shuts_down_the_logger_that_it_created(helm: StandIn, make: Callable[..., Any]) -> None:
    handler = HelmLogHandler("codex", helm.url, level=logging.WARNING, **LONG_WAITS)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("too low")
    log.warning("x")
    handler.close()
    assert helm.messages == ["x"]
    assert not handler.logger._thread.is_alive()
    shared = make()
    HelmLogHandler(shared).close()
    shared.info("y")
    assert shared.flush() and helm.messages == ["x", "y"]


def test_records_logged_while_sending_are_not_sent(helm: StandIn, make: Callable[..., Any]) -> None:
    """urllib3 logs every request, so two loggers in one process could send each other's records endlessly.

    The second logger is from another copy of the file, such as one bundled with a library.
    """
    root = logging.getLogger()
    level = root.level
    seen: list[logging.LogRecord] = []

    class Watcher(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    watcher = Watcher()
    copy = load()
    handlers = [
        watcher,
        HelmLogHandler(make()),
        copy.HelmLogHandler(copy.HelmLogger("codex", helm.url, **LONG_WAITS)),
    ]
    root.setLevel(logging.DEBUG)
    for handler in handlers:
        root.addHandler(handler)
    try:
        logging.getLogger("urllib3.connectionpool").debug("the service's own request")
        for _ in range(3):
            for handler in handlers[1:]:
                handler.flush()
    finally:
        for handler in handlers:
            root.removeHandler(handler)
        root.setLevel(level)
        handlers[2].logger.shutdown(WITHIN)
    assert helm.messages == ["the service's own request"] * 2
    if helm_logger.requests:
        assert any((record.threadName or "").startswith("helm-logger") for record in seen)


def test_a_handler_that_forwards_records_makes_no_loop(helm: StandIn, make: Callable[..., Any]) -> None:
    logger = make()

    class Bridge(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger.debug(record.getMessage())
            logger.flush()
            logger.shutdown()

    bridge = Bridge()
    log = logging.getLogger("urllib3")
    level = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(bridge)
    try:
        logger.info("x")
        assert logger.flush()
    finally:
        log.removeHandler(bridge)
        log.setLevel(level)
    assert logger.flush()
    assert helm.messages == ["x"]


# The file itself and its README


def examples() -> dict[str, str]:
    sections = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    found = {}
    for title, text in sections:
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            found[title] = block
    return found


def test_the_readmes_flask_example(helm: StandIn, transport: str) -> None:
    use = """
with app.test_client() as client:
    assert client.get("/tickets/7", headers={"X-Correlation-ID": "abc-123"}).json == {"ticket": 7}
app.logger.warning("outside")
"""
    done = run(examples()["Flask"] + use, helm, transport)
    assert done.returncode == 0, done.stderr
    inside, outside = helm.stored
    assert (inside["level"], inside["message"]) == ("INFO", "Ticket 7 was viewed")
    assert (inside["trace_id"], inside["user_id"]) == ("abc-123", "anna@example.com")
    wanted = {"ticket": 7, "path": "/tickets/7", "method": "GET", "function": "ticket"}
    assert inside["context"].items() >= wanted.items()
    assert outside["message"] == "outside" and "trace_id" not in outside
    assert json.loads(helm.requests[0].body)["service_name"] == "codex"


def test_the_readmes_logging_example(helm: StandIn, transport: str) -> None:
    done = run(examples()["logging"], helm, transport)
    assert done.returncode == 0, done.stderr
    limit, failed = helm.stored
    assert (limit["message"], failed["message"]) == ("Rate limit approaching", "No such account")
    assert done.stderr.startswith("WARNING:__main__:Rate limit approaching\n"), "it is printed as well"
    assert (limit["level"], limit["trace_id"]) == ("WARNING", "abc-123")
    assert limit["context"].items() >= {"current": 90, "max": 100}.items()
    assert failed["context"]["exception"].endswith("KeyError: 'key'")


def test_the_readmes_plain_example(helm: StandIn, transport: str) -> None:
    done = run(examples()["Without logging"], helm, transport)
    assert (done.returncode, done.stderr) == (0, "")
    started, failed = helm.stored
    assert (started["message"], started["context"]) == ("Service started", {"version": "1.0"})
    assert (failed["trace_id"], failed["user_id"]) == ("abc-123", "admin@example.com")


def test_every_example_of_the_readme_is_run() -> None:
    assert set(examples()) == {"Flask", "logging", "Without logging"}


def test_the_readme_matches_the_code() -> None:
    import inspect

    signature = inspect.signature(HelmLogger)
    row = {"helm_url": None, "batch_size": 10, "interval": 5.0, "queue_size": 10_000, "timeout": 5.0}
    assert {name: signature.parameters[name].default for name in row} == row
    named = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| `.*?\|", README.read_text(), re.MULTILINE))))
    assert named == set(signature.parameters) - {"service_name"}


def test_it_needs_only_python_3_8_and_the_standard_library() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    outside = {str(name).partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert outside == {"requests"}
    assert not names & {"tomllib", "zoneinfo", "graphlib", "enum.StrEnum"}
