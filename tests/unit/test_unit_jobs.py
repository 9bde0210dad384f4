"""Which jobs of systemd nobody at Helm asked for. The lines are as systemd 252 wrote them."""

from collections.abc import Sequence

import pytest

from helmd.model.identity.unit_jobs import (
    RESTART_SCHEDULED,
    STARTUP_FINISHED,
    ManagerLine,
    OwnOperation,
    UnitJob,
    jobs_outside_helm,
)

UNIT, OTHER = "hivematrix-core.service", "hivematrix-nexus.service"
SECOND = 1_000_000


def at(
    seconds: float, kind: str = "", result: str = "", job: str = "7", unit: str = UNIT, message: str = ""
) -> ManagerLine:
    return ManagerLine("boot 1", round(seconds * SECOND), unit, job, kind, result, message)


def start(seconds: float, job: str = "7", unit: str = UNIT, result: str = "done") -> list[ManagerLine]:
    return [at(seconds, "start", "", job, unit), at(seconds + 1, "start", result, job, unit)]


def stop(seconds: float, job: str = "8", unit: str = UNIT) -> list[ManagerLine]:
    return [at(seconds, "stop", "", job, unit), at(seconds + 1, "stop", "done", job, unit)]


def restart(seconds: float) -> list[ManagerLine]:
    return [
        at(seconds, "stop"),
        at(seconds + 1, "restart", "done"),
        at(seconds + 1, "start"),
        at(seconds + 2, "start", "done"),
    ]


FINISHED = at(100, job="", unit="", message=STARTUP_FINISHED)
SHUTDOWN = at(900, "start", "", "99", "exit.target")
AUTOMATIC = at(299, job="", message=RESTART_SCHEDULED)


def outside(lines: Sequence[ManagerLine], *own: OwnOperation) -> list[tuple[str, str, float]]:
    return [(job.action, job.result, job.began / SECOND) for job in jobs_outside_helm(lines, own)]


def operation(began: float, written: float, unit: str = UNIT) -> OwnOperation:
    return OwnOperation(unit, round(began * SECOND), round(written * SECOND))


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (start(300), [("start", "done", 300)]),
        (stop(300), [("stop", "done", 300)]),
        (restart(300), [("restart", "done", 300)]),
        (start(300, result="failed"), [("start", "failed", 300)]),
        ([*stop(300), *start(400)], [("stop", "done", 300), ("start", "done", 400)]),
        (start(300)[:1], []),
        ([AUTOMATIC, *restart(300)], []),
        ([AUTOMATIC, *restart(300), *stop(400)], [("stop", "done", 400)]),
        ([AUTOMATIC, *start(300, unit=OTHER)], [("start", "done", 300)]),
        ([*start(50), FINISHED], []),
        ([FINISHED, *start(300)], [("start", "done", 300)]),
        ([*stop(895), SHUTDOWN], []),
        ([*stop(300), SHUTDOWN], [("stop", "done", 300)]),
        ([at(300, "reload"), at(301, "reload", "done")], []),
        ([at(300, "start", "", "7", "foo.target"), at(301, "start", "done", "7", "foo.target")], []),
    ],
    ids=range(15),
)
def test_without_any_operation_of_helm(lines: list[ManagerLine], found: list[tuple[str, str, float]]) -> None:
    assert outside(lines) == found


@pytest.mark.parametrize(
    ("own", "explained"),
    [
        (operation(299, 302), True),
        (operation(299.9, 300.1), True),
        (operation(200, 297.5), True),
        (operation(200, 296), False),
        (operation(302, 303), False),
        (operation(299, 302, OTHER), False),
        (operation(299, 302, ""), True),
        (operation(310, 312, ""), False),
        (operation(298, 299.5, ""), False),
    ],
)
def test_what_an_operation_explains(own: OwnOperation, explained: bool) -> None:
    assert outside(start(300), own) == ([] if explained else [("start", "done", 300)])


def test_jobs_of_another_boot_have_the_same_numbers() -> None:
    again = [ManagerLine("boot 2", line.time + 500 * SECOND, *list(fields_of(line))) for line in stop(300)]
    assert outside([*stop(300)[:1], *again]) == [("stop", "done", 800)]


def fields_of(line: ManagerLine) -> tuple[str, str, str, str, str]:
    return line.unit, line.job, line.kind, line.result, line.message_id


def test_a_job_says_when_it_began_and_ended() -> None:
    assert jobs_outside_helm(stop(300), ()) == [UnitJob(UNIT, "stop", "done", 300 * SECOND, 301 * SECOND)]
