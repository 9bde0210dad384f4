"""journald restarted, its files rotated, deleted unread, lines thrown away: each line once, and gaps are reported."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from tests.campaign import scaled
from tests.system import log_sources, printed_lines
from tests.system.booted import Sandbox, until

SECONDS = scaled(120.0, 9.0)
PATIENCE = scaled(300.0, 60.0)
LIMITS = "/run/systemd/units/log-rate-limit"
ACCOUNT = "user@1000.service"


def gaps(box: Sandbox, kind: str, after: int) -> list[dict[str, Any]]:
    """What the store reports of gaps since an id."""
    query = (
        f"SELECT context FROM log_entries WHERE service_name = 'helm' AND id > {after} AND context->>'gap' = '{kind}'"
    )
    return [json.loads(line) for line in box.sql(query + " ORDER BY id").splitlines()]


def newest(box: Sandbox) -> int:
    return int(box.sql("SELECT max(id) FROM log_entries"))


def now(box: Sandbox) -> datetime:
    return datetime.fromisoformat(box("date", "--utc", "+%FT%T.%6N+00:00").out.strip())


def journal(box: Sandbox, printer: printed_lines.Printer) -> int:
    """How many of its lines the journal still has."""
    return printer.journal(printed_lines.boot_id(box)).total()


def test_restarts_and_rotations_lose_and_double_nothing(box: Sandbox) -> None:
    """While services print; a line that journald itself has in two files is one."""
    count = int(1000 * SECONDS)
    printers = [printed_lines.register(box, count) for _ in range(2)]
    talkers = log_sources.register_talkers(box, 2, count, 1000)
    last = newest(box)
    box.helmctl("start", *(printer.name for printer in printers), *(talker.name for talker in talkers))
    began = time.monotonic()
    chance = printed_lines.seeded_random()
    restarted = rotated = 0
    while time.monotonic() < began + SECONDS - 2:
        time.sleep(chance.uniform(0.5, 2))
        box("journalctl", "--rotate", root=True)
        rotated += 1
    log_sources.check_each_stored_once(talkers, PATIENCE)
    # A line that is half read when journald ends would be its own loss, so it is restarted while no flood runs.
    more = [printed_lines.register(box, count) for _ in range(2)]
    box.helmctl("start", *(printer.name for printer in more))
    began = time.monotonic()
    while time.monotonic() < began + SECONDS - 2:
        # Five starts within ten seconds would be too many for systemd.
        time.sleep(chance.uniform(3, 4))
        box("systemctl", "restart", "systemd-journald", root=True)
        restarted += 1
    for printer in (*printers, *more):
        until(lambda printer=printer: printer.count() >= count, SECONDS + PATIENCE)  # type: ignore[misc]
        printed_lines.check_same_lines(printer.stored(), printed_lines.numbered_lines(count))
    print(f"{rotated} rotations, {restarted} restarts; {4 * count:,} entries and lines once each")
    assert gaps(box, "lost", last) == gaps(box, "unreadable", last) == []


def test_rotations_while_readers_and_store_are_killed_or_stopped_lose_and_double_nothing(box: Sandbox) -> None:
    """At random. A killed store may have lost what it had stored last of a file that was read to its end meanwhile."""
    count = int(1000 * SECONDS)
    printers = [printed_lines.register(box, count) for _ in range(2)]
    last = newest(box)
    box.helmctl("start", *(printer.name for printer in printers))
    began = time.monotonic()
    chance = printed_lines.seeded_random()
    done = Counter[str]()
    while time.monotonic() < began + SECONDS - 2:
        what = chance.choice(("rotate", "rotate", "kill helmd-journal", "stop helmd-journal", "kill helmd-postgres"))
        done[what] += 1
        if what.startswith("kill"):
            printed_lines.kill_main_process(box, what.split()[1])
        elif what.startswith("stop"):
            # It may be between two lives.
            reader = until(lambda: printed_lines.main_pid(box, "helmd-journal"), 30)
            box.shell(f"kill -STOP {reader}")
            try:
                box("journalctl", "--rotate", root=True)
                time.sleep(chance.uniform(0.1, 3))
            finally:
                box.shell(f"kill -CONT {reader}", check=False)
        else:
            box("journalctl", "--rotate", root=True)
        time.sleep(chance.uniform(0.5, 2))
    for printer in printers:
        until(lambda printer=printer: printer.count() >= count, SECONDS + PATIENCE)  # type: ignore[misc]
        printed_lines.check_same_lines(printer.stored(), printed_lines.numbered_lines(count))
    print(f"{dict(done)}; {2 * count:,} lines once each")
    assert gaps(box, "lost", last) == gaps(box, "unreadable", last) == []


def test_files_deleted_unread_are_a_gap_that_is_reported(box: Sandbox) -> None:
    """While helmd-journal is stopped: from when to when, and how many lines at most; all others once."""
    before, lost, kept = (printed_lines.register(box, count, rate=5000) for count in (2000, 3000, 1000))
    names = [printer.name for printer in (before, lost, kept)]
    box.helmctl("start", before.name)
    until(lambda: before.count() == 2000, PATIENCE)
    box("systemctl", "--user", "stop", "helmd-journal")
    try:
        last, since = newest(box), now(box)
        box.helmctl("start", lost.name)
        until(lambda: journal(box, lost) == 3000, PATIENCE)
        # Before the rotation: the ticker's next line after that is in the file that stays.
        until_when = now(box)
        box("journalctl", "--rotate", root=True)
        time.sleep(1.5)
        box("journalctl", "--vacuum-time=1s", root=True)
        left = journal(box, lost)
        assert left == 0, "what was not read was to be gone"
        box.helmctl("start", kept.name)
        until(lambda: journal(box, kept) == 1000, PATIENCE)
    finally:
        box("systemctl", "--user", "start", "helmd-journal")
    until(lambda: kept.count() >= 1000, PATIENCE)
    (gap,) = until(lambda: gaps(box, "lost", last), PATIENCE)
    for printer, count in ((before, 2000), (lost, 0), (kept, 1000)):
        printed_lines.check_same_lines(printer.stored(), printed_lines.numbered_lines(count))
    print(gap)
    assert datetime.fromisoformat(gap["since"]) <= since < until_when <= datetime.fromisoformat(gap["until"])
    # Other accounts' entries are counted in, by journald's numbers.
    assert 3000 <= gap["at_most"] < 3000 + 2000
    assert len(gaps(box, "lost", last)) == 1
    assert box("systemctl", "--user", "is-active", *(f"hivematrix-{name}" for name in names)).code == 0


@contextmanager
def rate_limit(box: Sandbox, burst: int, seconds: int) -> Iterator[None]:
    """journald's limit for all of the account's units, as the manager leaves it for journald; then what it was."""
    script = f"ln -sfn {{}} '{LIMITS}-burst:{ACCOUNT}'; ln -sfn {{}} '{LIMITS}-interval:{ACCOUNT}'"
    script += "; systemctl restart systemd-journald"
    was = [box("readlink", f"{LIMITS}-{what}:{ACCOUNT}", root=True).out.strip() for what in ("burst", "interval")]
    box.shell(script.format(burst, seconds * 1_000_000), root=True)
    try:
        yield
    finally:
        box.shell(script.format(*was), root=True)


def test_lines_that_journald_throws_away_are_reported_with_their_number(box: Sandbox) -> None:
    """What it kept is stored once. It reports that only with the first line after its interval."""
    printer, later = printed_lines.register(box, 5000, rate=5000), printed_lines.register(box, 0, rate=10)
    last = newest(box)
    with rate_limit(box, 200, 5):
        box.helmctl("start", printer.name)
        time.sleep(6)
        box.helmctl("start", later.name)
        notified = until(lambda: gaps(box, "suppressed", last), PATIENCE)
        kept = journal(box, printer)
    print(f"{kept} of 5,000 kept; {notified}")
    assert 0 < kept < 5000, "the limit was to be reached"
    until(lambda: printer.count() >= kept, PATIENCE)
    assert printer.stored() == printer.journal(printed_lines.boot_id(box))
    assert 5000 - kept <= sum(gap["count"] for gap in notified)
    assert all(now(box) > datetime.fromisoformat(gap["until"]) for gap in notified)
