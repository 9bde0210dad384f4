"""Judging the response to a health check."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.health.target import probe_of
from helmd.model.suite.service import Health, Service
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
        (200, b'{"status": "Degraded"}', DEGRADED, "answered 200: degraded"),
        (200, b'{"status": "warn"}', DEGRADED, "answered 200: degraded"),
        (429, b"", DEGRADED, "answered 429: it works, but limits requests, health checks among them"),
        (503, b"{" * 100_000, UNHEALTHY, "answered 503"),
        (503, b'{"a":' * 100_000, UNHEALTHY, "answered 503"),
        (302, b"", UNHEALTHY, "answered 302, a redirect: set health.path to a path that it answers itself"),
        (404, b'{"status": "ok"}', UNHEALTHY, "answered 404: it has no such path"),
        (405, b"", UNHEALTHY, "answered 405: it does not take GET there; set health.path to a path that does"),
    ],
    ids=str,
)
def test_responses(code: int, body: bytes, state: str, sentence: str) -> None:
    assert judge(code, body) == HealthVerdict(state, sentence)


def test_expected_codes_replace_2xx() -> None:
    assert judge(401, b"", expect=(401, 403)).state == HEALTHY
    assert judge(200, b"", expect=(401,)).state == UNHEALTHY


def test_a_check_that_is_left_out_means_degraded() -> None:
    """As KnowledgeTree answers without Neo4j."""
    asked = {"service": "knowledgetree", "status": "healthy", "checks": {"disk": {"status": "healthy"}}}
    verdict = judge(200, json.dumps(asked).encode(), requires=("disk", "neo4j"))
    assert verdict.state == DEGRADED and verdict.sentence.startswith("answered 200, without the check neo4j: what it")
    asked["checks"] = {"disk": {"status": "healthy"}, "neo4j": {"status": "healthy"}}
    assert judge(200, json.dumps(asked).encode(), requires=("disk", "neo4j")).state == HEALTHY
    assert judge(200, b"fine", requires=("neo4j",)).state == DEGRADED
    asked = {"status": "degraded", "checks": {"dependencies": {"core": {"status": "unhealthy", "error": "timeout"}}}}
    both = judge(503, json.dumps(asked).encode(), requires=("neo4j",))
    assert both.sentence.startswith(
        "answered 503: degraded (core: timeout), without the check neo4j: what it checks is"
    )
    assert judge(500, b"", requires=("neo4j",)).state == UNHEALTHY
    service = Service("knowledgetree", port=5020, health=Health(requires=("neo4j",)))
    assert probe_of(service).requires == ("neo4j",) and probe_of(service, starting=True).requires == ()


def test_degraded_says_which_checks_are_bad() -> None:
    checks = {
        "redis": {"status": "unhealthy"},
        "database": {"status": "healthy"},
        "disk": {"status": "up"},
        "quiet": {},
        "odd": "x",
        "esc\x1b[2J": {"status": "unhealthy", "error": "\x1b[2J" + "x" * 500},
        "long" * 20: {"status": "unhealthy"},
        "keycloak": {"status": "unreachable"},
    }
    said = judge(503, json.dumps({"status": "degraded", "checks": checks}).encode()).sentence
    assert said.startswith("answered 503: degraded (redis; odd: x; esc\\x1b[2J: \\x1b[2Jxxx")
    assert said.endswith("; keycloak: unreachable)") and said.isprintable() and len(said) < 300
    many = {f"check{number}": False for number in range(9)}
    said = judge(503, json.dumps({"status": "degraded", "checks": many}).encode()).sentence
    assert said == "answered 503: degraded (check0; check1; check2; check3; check4; and more)"


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (
            {"status": "degraded", "checks": {"search": {"status": "unhealthy", "error": "connection_refused"}}},
            "(search: connection_refused)",
        ),
        ({"checks": {"disk": {"healthy": False, "message": "full"}, "db": {"healthy": True}}}, "(disk: full)"),
        ({"checks": {"disk": "full", "db": "ok"}}, "(disk: full)"),
        # A group without a status of its own.
        (
            {
                "checks": {
                    "upstream": {
                        "search": {"status": "unhealthy", "error": "connection_refused"},
                        "ldap": {"status": "unhealthy", "http_status": 503},
                        "mail": {"status": "healthy", "response_time_ms": 3},
                    },
                    "host": {"disk": {"use": [{"status": "fail", "output": "95 %"}]}, "load": 0.3},
                    "db": {"type": "postgresql", "latency_ms": 3, "tags": ["fail"]},
                }
            },
            "(search: connection_refused; ldap: answered 503; use: 95 %)",
        ),
        # Spring Boot's actuator, with a composite; then as of 1.x.
        (
            {
                "status": "DOWN",
                "components": {
                    "db": {
                        "status": "DOWN",
                        "components": {
                            "orders": {"status": "DOWN", "details": {"error": "Connection to 10.0.0.9 refused"}},
                            "users": {"status": "UP"},
                        },
                    },
                    "ping": {"status": "UP"},
                },
            },
            "(orders: Connection to 10.0.0.9 refused)",
        ),
        ({"status": "DOWN", "details": {"mail": {"status": "DOWN"}}}, "(mail)"),
        # MicroProfile Health, as Quarkus and Keycloak have it.
        (
            {
                "status": "DOWN",
                "checks": [
                    {"name": "Database connections", "status": "DOWN", "data": {"reason": "timed out"}},
                    {"name": "Caches", "status": "UP"},
                ],
            },
            "(Database connections: timed out)",
        ),
        # ASP.NET Core, by its own writer and by that of AspNetCore.Diagnostics.HealthChecks.
        (
            {"status": "Unhealthy", "results": {"queue": {"status": "Unhealthy", "description": "no broker"}}},
            "(queue: no broker)",
        ),
        ({"entries": {"sql": {"status": "Degraded", "duration": "0:01"}, "b": {"status": "Healthy"}}}, "(sql)"),
        # application/health+json (draft-inadarei-api-health-check): a list of results for each check.
        (
            {"status": "fail", "checks": {"disk:use": [{"status": "fail", "output": "95 %"}, {"status": "pass"}]}},
            "(disk:use: 95 %)",
        ),
        # NestJS' terminus: what fails is in "error" and, with all others, in "details".
        (
            {
                "status": "error",
                "error": {"redis": {"status": "down", "message": "ECONNREFUSED"}},
                "details": {"redis": {"status": "down", "message": "ECONNREFUSED"}, "http": {"status": "up"}},
            },
            "(redis: ECONNREFUSED)",
        ),
        ({"status": "unhealthy", "checks": {"a": {"status": "healthy"}}}, ""),
    ],
    ids=str,
)
def test_failing_checks_are_named_in_the_usual_shapes(document: dict[str, object], named: str) -> None:
    assert judge(500, json.dumps(document).encode()).sentence.endswith(named or "answered 500")


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["status", "checks", "components", "details", "error", "name", "data"]) | st.text(),
                inner,
            )
        ),
        max_leaves=20,
    )
)
def test_any_health_document_is_bounded_and_printable(document: object) -> None:
    sentence = judge(503, json.dumps({"status": "degraded", "checks": document}).encode()).sentence
    assert sentence.isprintable() and len(sentence) < 800


def test_what_to_change_is_said() -> None:
    asked = "http://localhost:5000/health"
    said = judge(301, b"", location="https://desk.example/health", asked=asked).sentence
    assert said.startswith('answered 301, a redirect to https://desk.example/health: if it wants TLS, set url = "https')
    assert judge(302, b"", location="/\x1b[2J" + "x" * 999, asked=asked).sentence.isprintable()
    assert judge(404, b"", asked=asked).sentence == (
        "answered 404: it has no path /health; set health.path to one that it has"
    )
    assert "health.expect = [401]" in judge(401, b"", asked=asked).sentence
    assert "another Host than localhost:5000, set url" in judge(400, b"", asked=asked).sentence


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
        else "there is no realm hivematrix; to make it, run: helmctl keycloak setup"
        if "error" in document
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
