"""Judging the response to a health check."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.units.health import DEGRADED, HEALTHY, UNHEALTHY, HealthVerdict, judge


@pytest.mark.parametrize(
    ("code", "body", "state", "sentence"),
    [
        (200, b"", HEALTHY, "answered 200"),
        (204, b"", HEALTHY, "answered 204"),
        (200, b"<html>", HEALTHY, "answered 200"),
        (200, b'{"status": "healthy"}', HEALTHY, "answered 200"),
        (200, b'{"status": "unhealthy"}', HEALTHY, "answered 200"),
        (200, b'{"status": "degraded"}', DEGRADED, "answered 200: degraded"),
        (503, b'{"status": "degraded"}', DEGRADED, "answered 503: degraded"),
        (503, b' \n{"status": "degraded", "checks": []}', DEGRADED, "answered 503: degraded"),
        (503, b'{"status": "unhealthy"}', UNHEALTHY, "answered 503"),
        (503, b'["degraded"]', UNHEALTHY, "answered 503"),
        (503, b'{"status": "degraded"', UNHEALTHY, "answered 503"),
        (503, b'{"status": ["degraded"]}', UNHEALTHY, "answered 503"),
        (503, b"{" * 100_000, UNHEALTHY, "answered 503"),
        (503, b'{"a":' * 100_000, UNHEALTHY, "answered 503"),
        (302, b"", UNHEALTHY, "answered 302"),
        (404, b'{"status": "ok"}', UNHEALTHY, "answered 404"),
    ],
    ids=str,
)
def test_responses(code: int, body: bytes, state: str, sentence: str) -> None:
    assert judge(code, body) == HealthVerdict(state, sentence)


def test_expected_codes_replace_2xx() -> None:
    assert judge(401, b"", expect=(401, 403)).state == HEALTHY
    assert judge(200, b"", expect=(401,)).state == UNHEALTHY


def test_degraded_says_which_checks_are_bad() -> None:
    checks = {
        "redis": {"status": "unhealthy"},
        "database": {"status": "healthy"},
        "disk": {"status": "up"},
        "quiet": {},
        "odd": "x",
        "esc\x1b[2J": {"status": "unhealthy"},
        "long" * 20: {"status": "unhealthy"},
        "keycloak": {"status": "unreachable"},
    }
    said = judge(503, json.dumps({"status": "degraded", "checks": checks}).encode()).sentence
    assert said == "answered 503: degraded (redis, keycloak)"


@pytest.mark.parametrize(
    ("code", "document", "good"),
    [
        (200, {"issuer": "http://localhost:8080/realms/hivematrix"}, True),
        (200, {"issuer": "https://login.example/auth/realms/hivematrix"}, True),
        (200, {"issuer": "http://localhost:8080/realms/master"}, False),
        (200, {"issuer": 7}, False),
        (200, {"status": "degraded"}, False),
        (404, {"error": "Realm does not exist"}, False),
        (404, {"issuer": "http://localhost:8080/realms/hivematrix"}, False),
    ],
)
def test_a_realm_returns_its_discovery_document(code: int, document: dict[str, object], good: bool) -> None:
    verdict = judge(code, json.dumps(document).encode(), realm="hivematrix")
    assert verdict.started == good
    assert verdict.sentence == (
        "realm hivematrix is available"
        if good
        else f"answered {code}, which is not the discovery document of realm hivematrix"
    )


@given(
    st.integers(100, 999),
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: b'{"status": "' + text.encode() + b'"}'),
)
def test_any_response_is_judged(code: int, body: bytes) -> None:
    verdict = judge(code, body)
    assert verdict.state in (HEALTHY, DEGRADED, UNHEALTHY) and verdict.sentence.isprintable()


def test_what_counts_as_started() -> None:
    assert [HealthVerdict(state, "").started for state in (HEALTHY, DEGRADED, UNHEALTHY, "unknown")] == [
        True,
        True,
        False,
        False,
    ]
