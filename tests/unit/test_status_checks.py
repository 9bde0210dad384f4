"""The health checks of a status: many that are quick, and some that hang."""

import threading
import time

from helmd.model.units.health import HEALTHY, HealthVerdict
from helmd.operations.monitoring.status import run_checks
from tests.waiting import WITHIN

WELL = HealthVerdict(HEALTHY, "answered 200")


def test_quick_checks_take_few_threads() -> None:
    threads = set()

    def quick() -> HealthVerdict:
        threads.add(threading.get_ident())
        return WELL

    assert run_checks({str(number): quick for number in range(500)}) == {str(number): WELL for number in range(500)}
    assert len(threads) < 100
    assert run_checks({}) == {}


def test_checks_that_hang_delay_no_others() -> None:
    """All are begun before the first has ended."""
    met = threading.Barrier(40)

    def hanging() -> HealthVerdict:
        met.wait(WITHIN)
        return WELL

    began = time.monotonic()
    assert set(run_checks({str(number): hanging for number in range(40)}).values()) == {WELL}
    assert time.monotonic() - began < WITHIN
