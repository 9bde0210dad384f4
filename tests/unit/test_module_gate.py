"""When a started version passes its gate, and when it does not."""

from dataclasses import replace

import pytest

from helmd.model.modules.gate import Answer, GatePolicy, Observation, gate_verdict

POLICY = GatePolicy(seconds=60, errors_before=2)
FIRST = Observation(0, active=True, restarts=3, healthy=True)
PAGE = Answer("the page /codex/ through nexus", 200)


@pytest.mark.parametrize(
    ("now", "failed"),
    [
        (replace(FIRST, at=5, active=False), "it does not run any more"),
        (replace(FIRST, at=5, restarts=4), "it ended, and systemd restarted it"),
        (replace(FIRST, at=5, healthy=False, health="HTTP 503"), "its health check fails: HTTP 503"),
        (replace(FIRST, at=5, healthy=False), "its health check fails"),
        (replace(FIRST, at=5, errors=3), "it logged 3 errors, 2 in as long a time before"),
        (replace(FIRST, answers=(PAGE, Answer("the asset /codex/a.css", 500))), "the asset /codex/a.css: HTTP 500"),
        (replace(FIRST, answers=(Answer("the asset /a", 0, "no answer in 5 s"),)), "the asset /a: no answer in 5 s"),
        (replace(FIRST, at=99, restarts=4), "it ended, and systemd restarted it"),
    ],
)
def test_what_fails_it(now: Observation, failed: str) -> None:
    assert gate_verdict(POLICY, FIRST, now).failed == failed


@pytest.mark.parametrize(("at", "passed"), [(0.0, False), (59.9, False), (60.0, True)])
def test_it_passes_after_its_time(at: float, passed: bool) -> None:
    now = replace(FIRST, at=at, errors=2, answers=(PAGE, Answer("the asset", 304)))
    verdict = gate_verdict(POLICY, FIRST, now)
    assert (verdict.passed, verdict.failed) == (passed, "")


GOOD, BAD = (200, 302, 401, 403, 429), (404, 410, 500, 502, 0)


@pytest.mark.parametrize(("status", "good"), [*((code, True) for code in GOOD), *((code, False) for code in BAD)])
def test_answers(status: int, good: bool) -> None:
    assert Answer("x", status).good is good
    assert Answer("x", 404, usual=404).good
    assert not Answer("x", 502, usual=502).good
    assert not Answer("x", status, "no answer").good
