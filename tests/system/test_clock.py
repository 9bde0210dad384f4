"""A wrong clock. A sandbox can't set that of this machine, so Helm's processes get one of their own by faketime(1)."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.system.booted import Sandbox, until

UNITS = ("helmd-postgres", "helmd", "helmd-journal")
DROP_IN = "/home/hive/.config/systemd/user/{}.service.d/50-test-clock.conf"
DAYS = 400

SetClock = Callable[[int], None]


@pytest.fixture
def set_clock(box: Sandbox) -> Iterator[SetClock]:
    """Restarts Helm and its store with a clock that is so many days ahead of this machine's."""
    box("apt-get", "install", "--yes", "--no-install-recommends", "libfaketime", root=True)
    library = box.shell("dpkg -L libfaketime | grep /libfaketime.so.1").out.strip()

    def set_to(days: int) -> None:
        # The monotonic clock is never wrong: systemd and sd_notify(3) compare it with that of others.
        environment = f"LD_PRELOAD={library} FAKETIME={days:+d}d FAKETIME_DONT_FAKE_MONOTONIC=1"
        for unit in UNITS:
            box.write(DROP_IN.format(unit), f"[Service]\nEnvironment={environment}\n")
        restart(box)

    try:
        yield set_to
    finally:
        for unit in UNITS:
            box("rm", "-f", DROP_IN.format(unit))
        restart(box)


def restart(box: Sandbox) -> None:
    box("systemctl", "--user", "daemon-reload")
    box("systemctl", "--user", "restart", *(f"{unit}.service" for unit in UNITS))


def stored(box: Sandbox) -> int:
    return int(box.sql("SELECT count(*) FROM log_entries"))


@pytest.mark.runs_last  # measurements of the year to come stay
def test_a_clock_ahead_by_a_year_neither_empties_the_store_nor_stops_it(box: Sandbox, set_clock: SetClock) -> None:
    until(lambda: stored(box) > 100, within=30)
    oldest = box.sql("SELECT min(id) FROM log_entries")
    partitions = box.sql("SELECT count(*) FROM log_partitions")
    set_clock(DAYS)
    shown = datetime.fromisoformat(box.sql("SELECT now()"))
    assert shown - datetime.now(UTC) > timedelta(days=DAYS - 1)
    before = stored(box)
    # More than a round of retention, which is also made at the start; the ticker prints a line each second.
    until(lambda: stored(box) > before + 20, within=60)
    assert box.sql("SELECT min(id) FROM log_entries") == oldest
    assert int(box.sql("SELECT count(*) FROM log_partitions")) >= int(partitions)


def test_doctor_says_that_the_clock_is_behind_what_is_stored(box: Sandbox) -> None:
    until(lambda: stored(box) > 100, within=30)
    box("apt-get", "install", "--yes", "--no-install-recommends", "faketime", root=True)
    doctor = ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "helmctl", "doctor", "--json")
    done = box("faketime", "-f", "-30d", *doctor, check=False)
    findings = [each for each in json.loads(done.out)["findings"] if each["check"] == "log store"]
    assert any("is behind the newest of the log entries" in each["sentence"] for each in findings), findings
