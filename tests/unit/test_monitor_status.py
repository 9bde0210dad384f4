"""The status of a service in the API."""

from dataclasses import replace

import pytest

from helmd.model.api.json_codec import to_json
from helmd.model.suite.service import Service
from helmd.model.units.health import DEGRADED, HEALTHY, UNHEALTHY, HealthVerdict
from helmd.model.units.status import Observed, Usage, service_status, summary
from helmd.model.units.unit_state import UnitFacts

NOW = 1_800_000_000.0
CORE = Service("core", url="http://localhost:5000", port=5000)
UP = UnitFacts(
    "hivematrix-core.service",
    "loaded",
    "active",
    "running",
    main_pid=42,
    active_since=NOW - 100,
    started_at=NOW - 101,
    invocation="a",
)
WELL = HealthVerdict(HEALTHY, "answered 200")


def test_all_fields_of_a_running_service() -> None:
    observed = Observed("core", CORE, UP, "production", WELL, 1.0, 0, 2.5, Usage(1.5, 62.4))
    assert to_json(service_status(observed, NOW)) == {
        "service_name": "core",
        "status": "running",
        "state": "healthy",
        "pid": 42,
        "port": 5000,
        "configured_port": 5000,
        "configured_url": "http://localhost:5000",
        "started_at": "2027-01-15T07:58:19+00:00",
        "create_time": "2027-01-15T07:58:19+00:00",
        "cpu_percent": 1.5,
        "memory_mb": 62.4,
        "health": "healthy",
        "health_message": "answered 200",
        "unit": "hivematrix-core.service",
        "active_state": "active",
        "sub_state": "running",
        "mode": "production",
        "restarts": 0,
        "last_exit": None,
        "ended_at": None,
        "next_run": None,
        "registered": True,
    }


@pytest.mark.parametrize(
    ("changes", "word", "health", "says"),
    [
        ({"active_state": "inactive", "sub_state": "dead", "main_pid": 0}, "stopped", "unknown", "not running"),
        ({"load_state": "not-found", "active_state": "inactive"}, "stopped", "unknown", "not installed"),
        ({"active_state": "activating", "sub_state": "start-post"}, "starting", "unknown", "starting"),
        ({"active_state": "deactivating", "sub_state": "stop"}, "stopping", "unknown", "stopping"),
        (
            {"active_state": "activating", "sub_state": "auto-restart", "result": "signal", "exit_code": 2}
            | {"exit_status": 9, "restart_delay": 1.0},
            "error",
            "unhealthy",
            "core was killed by SIGKILL; systemd restarts it in 1 s (restart 1)",
        ),
        ({"restarts": 4, "active_since": NOW - 1}, "error", "unhealthy", "it was restarted 4 times"),
        ({"active_state": "failed", "result": "start-limit-hit"}, "error", "unhealthy", "failed too often"),
        ({"active_state": "unknown"}, "unknown", "unknown", "not known yet"),
    ],
)
def test_states(changes: dict[str, object], word: str, health: str, says: str) -> None:
    status = service_status(Observed("core", CORE, replace(UP, **changes), verdict=WELL), NOW)  # type: ignore[arg-type]
    assert (status.status, status.health) == (word, health)
    assert says in status.health_message


def test_running_but_not_checked_yet() -> None:
    status = service_status(Observed("core", CORE, UP), NOW)
    assert (status.status, status.health) == ("running", "unknown")


def test_an_unregistered_unit_is_reported_as_such() -> None:
    status = service_status(Observed("orphan", None, UP), NOW)
    assert (status.status, status.health, status.registered) == ("running", "unknown", False)
    assert "not in the registry" in status.health_message


@pytest.mark.parametrize(
    ("verdict", "word", "health"),
    [
        (None, "unknown", "unknown"),
        (WELL, "running", "healthy"),
        (HealthVerdict(DEGRADED, ""), "running", "degraded"),
        (HealthVerdict(UNHEALTHY, ""), "error", "unhealthy"),
    ],
)
def test_the_state_of_an_external_service_is_its_health(verdict: HealthVerdict | None, word: str, health: str) -> None:
    idp = Service("idp", "external", url="https://idp.example")
    status = service_status(Observed("idp", idp, UnitFacts(""), verdict=verdict), NOW)
    assert (status.status, status.health, status.unit) == (word, health, None)


@pytest.mark.parametrize(("state", "health"), [("failed", "unhealthy"), ("inactive", "unknown"), ("active", "healthy")])
def test_a_module_between_two_versions_says_so(state: str, health: str) -> None:
    """It is in the way of a start alone."""
    why = "core is not started: a change of it goes on"
    facts = replace(UP, active_state=state)
    status = service_status(Observed("core", CORE, facts, verdict=WELL, blocked=why), NOW)
    assert status.health == health and (status.health_message == why) is (state != "active")


def test_summary_counts_the_healthy_first() -> None:
    well = service_status(Observed("a", CORE, UP, verdict=WELL), NOW)
    ill = service_status(Observed("b", CORE, UP, verdict=HealthVerdict(DEGRADED, "")), NOW)
    dead = service_status(Observed("c", CORE, replace(UP, active_state="failed")), NOW)
    off = service_status(Observed("d", CORE, replace(UP, active_state="inactive")), NOW)
    assert summary([dead, ill, well, well, off]) == "5 services: 2 healthy, 1 degraded, 1 failed, 1 stopped"
    assert summary([well]) == "1 service: 1 healthy"
    assert summary([]) == "no services"
