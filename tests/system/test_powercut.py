"""Power cuts under load."""

import time

import pytest

from tests.system import printed_lines
from tests.system.booted import Sandbox, until

BACK_WITHIN = 240.0
"""Seconds, on a machine that does other things as well; Keycloak takes most of them."""
pytestmark = pytest.mark.runs_last

SERVICES = "/home/hive/.config/hivematrix/services.d"
GAP = "SELECT message FROM log_entries WHERE service_name = 'helm' AND context->>'gap' = 'lost' AND id >"


@pytest.mark.parametrize("ahead", ["store", "journal"])
def test_power_cut(box: Sandbox, ahead: str) -> None:
    """All comes back by itself. What was stored stays, what the journal still has is stored, and nothing is double.

    A cut costs the journal its last seconds, so the store is ahead of it; or the journal is, where PostgreSQL was away.
    """
    printer = printed_lines.register(box, 0)
    # The test's own file is written by a plain shell, which leaves it to the kernel when it reaches the disk.
    box("sync", f"{SERVICES}/{printer.name}.toml", SERVICES)
    box.helmctl("enable", printer.name)
    box.helmctl("start", printer.name)
    old = printed_lines.boot_id(box)
    until(lambda: printer.count() > (20_000 if ahead == "store" else 3_000), 120)
    committed, last = printer.stored(), box.sql("SELECT max(id) FROM log_entries")
    if ahead == "journal":
        box("systemctl", "--user", "stop", "helmd-postgres")
        time.sleep(5)
        box("journalctl", "--sync", root=True)
    cut = box.script("powercut")
    assert cut.code == 0, cut.text
    took = printed_lines.wait_until_healthy(box, BACK_WITHIN)
    new = printed_lines.boot_id(box)
    assert new != old
    assert box("systemctl", "--user", "is-active", "hivematrix.target").out.strip() == "active"

    until(lambda: printer.stored(new).total() > 1_000, 60)
    box.helmctl("stop", printer.name)
    since = printed_lines.check_complete(printer, new)
    stored, kept = printer.stored(old), printer.journal(old)
    print(f"up {cut.seconds:.1f} s after the cut, healthy {took:.1f} s later; since the boot {since:,} lines")
    print(f"before: stored {len(committed):,}, then {len(stored):,}; kept by the journal {len(kept):,}")
    printed_lines.check_same_lines(stored, printed_lines.numbered_lines(len(stored)))
    assert committed <= stored, "lines that were stored are gone"
    assert kept <= stored, f"{len(kept - stored)} lines that the journal has are not in the store"
    if ahead == "journal":
        assert len(kept) > len(committed), "the journal was to have more than the store"
    elif len(kept) < len(stored):
        assert "Lines may be missing" in box.sql(f"{GAP} {last}"), "the store does not report the gap"


def test_lock_file_that_names_another_process(box: Sandbox) -> None:
    """After a cut the pid in postmaster.pid may be a service's; PostgreSQL alone would refuse to start forever."""
    for unit, state in (("helmd-postgres", "postgres-helm"), ("hivematrix-postgres", "postgres-suite")):
        other = printed_lines.main_pid(box, "hivematrix-ticker")
        lock = f".local/state/hivematrix/{state}/postmaster.pid"
        # What a cut leaves: the file as the server wrote it, and its pid somebody else's by now.
        box.shell(f"cp {lock} left; systemctl --user stop {unit}")
        box.shell(f"sed 1s/.*/{other}/ left > {lock} && chmod 600 {lock} && rm left")
        done = box("systemctl", "--user", "start", unit, check=False)
        assert done.code == 0, box("journalctl", "--user", "-n", "20", "-u", unit).out
        assert box("sed", "-n", "1p", lock).out.strip() == str(printed_lines.main_pid(box, unit))
    printed_lines.wait_until_healthy(box, 60)
