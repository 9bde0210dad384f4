"""No line is lost or doubled, and no service notices, whatever of Helm is killed or away."""

import json
import time
from collections import Counter
from typing import Any

from tests.campaign import scaled
from tests.system import log_sources, printed_lines
from tests.system.booted import Sandbox, until

SECONDS = scaled(180.0, 18.0)
KILLS = scaled(50, 3)
"""Of helmd, and of helmd-journal."""
TALKERS = 3
BURST = scaled(2_000, 1_000)
POSTS = 500
"""Entries posted a second."""
OUTAGE = scaled(60.0, 8.0)
CATCH_UP = scaled(600.0, 120.0)
"""How long the store may take to have all lines on a busy machine. On a quiet one it takes a second or two."""


def health(box: Sandbox) -> dict[str, Any]:
    done = box("curl", "--silent", "--max-time", "10", "http://127.0.0.1:5004/health")
    found: dict[str, Any] = json.loads(done.out)
    return found


def sleep_until(instant: float) -> None:
    time.sleep(max(0.0, instant - time.monotonic()))


def test_kill_9_of_helm_loses_and_doubles_nothing(box: Sandbox) -> None:
    """Whatever services print and post, as fast as it goes, while helmd and helmd-journal die again and again."""
    count = int(BURST * SECONDS)
    talkers = log_sources.register_talkers(box, TALKERS, count, BURST)
    names = [talker.name for talker in talkers]
    box.helmctl("start", *names)
    began = time.monotonic()
    before = printed_lines.main_processes(box, *names)
    restarts = {unit: printed_lines.restart_count(box, unit) for unit in ("helmd", "helmd-journal")}
    chance = printed_lines.seeded_random()
    kills = sorted((chance.uniform(1, SECONDS - 2), unit) for unit in restarts for _ in range(KILLS))
    killed: dict[str, list[int]] = {unit: [] for unit in restarts}
    with log_sources.Poster(box, int(POSTS * SECONDS), POSTS) as posting:
        for instant, unit in kills:
            sleep_until(began + instant)
            killed[unit].append(printed_lines.kill_main_process(box, unit))
        print(f"killed within {time.monotonic() - began:.1f} s: {killed}")
        repeated = posting.finish(CATCH_UP)
    sleep_until(began + SECONDS)
    ended = time.monotonic()
    log_sources.check_each_stored_once([*talkers, posting.source], CATCH_UP)
    print(f"{count * TALKERS:,} entries printed, {posting.source.count:,} posted ({repeated} batches again)")
    print(f"seen to be stored once each {time.monotonic() - ended:.1f} s after the last was due")
    assert printed_lines.main_processes(box, *names) == before, "a service has noticed"
    for unit, pids in killed.items():
        assert len(set(pids)) == KILLS, f"{unit}: {pids}"
        assert printed_lines.restart_count(box, unit) - restarts[unit] == KILLS, unit
    until(lambda: box("systemctl", "--user", "is-active", *killed, check=False).out.split() == ["active", "active"], 60)


def test_postgresql_away_loses_and_doubles_nothing(box: Sandbox) -> None:
    """The log store's PostgreSQL is stopped for a while, and later killed: helmd says so and stays."""
    seconds = OUTAGE + 14
    talkers = log_sources.register_talkers(box, 2, int(500 * seconds), 500)
    printer, other = printed_lines.register(box, int(500 * seconds), rate=500), printed_lines.register(box, 1)
    names = [printer.name, *(talker.name for talker in talkers)]
    until(lambda: health(box)["checks"]["database"]["status"] == "healthy", 60)
    box.helmctl("start", *names)
    began = time.monotonic()
    before = printed_lines.main_processes(box, *names)
    helm = {unit: printed_lines.main_pid(box, unit) for unit in ("helmd", "helmd-journal")}
    with log_sources.Poster(box, int(200 * seconds), 200) as posting:
        sleep_until(began + 4)
        box("systemctl", "--user", "stop", "helmd-postgres")
        stopped = time.monotonic()
        try:
            seen = until(lambda: (found := health(box))["checks"]["database"]["status"] == "unhealthy" and found, 30)
            assert seen["status"] == "degraded" and seen["checks"]["systemd"]["status"] == "healthy", seen
            took = [
                box.helmctl("start", other.name).seconds,
                box.helmctl("status", other.name).seconds,
                box.helmctl("stop", other.name).seconds,
            ]
            assert box.helmctl("status", check=False).code == 3, "one service was just stopped"
            print("start, status, stop without the store: " + ", ".join(f"{seconds:.2f} s" for seconds in took))
            box.helmctl("start", other.name)
            assert box.helmctl("logs", "-n", "5", printer.name).out.count("line ") == 5
            sleep_until(stopped + OUTAGE)
            assert health(box)["status"] == "degraded"
        finally:
            box("systemctl", "--user", "start", "helmd-postgres")
        sleep_until(max(began + seconds - 4, time.monotonic() + 1))
        killed = printed_lines.kill_main_process(box, "helmd-postgres")
        repeated = posting.finish(CATCH_UP)
    sleep_until(began + seconds)
    printed = time.monotonic()
    log_sources.check_each_stored_once([*talkers, posting.source], CATCH_UP)
    until(lambda: printer.count() >= 500 * seconds, CATCH_UP)
    printed_lines.check_same_lines(printer.stored(), printed_lines.numbered_lines(int(500 * seconds)))
    print(f"{repeated} batches posted again; all stored once {time.monotonic() - printed:.1f} s after the last was due")
    assert killed != printed_lines.main_pid(box, "helmd-postgres")
    assert printed_lines.main_processes(box, *names) == before, "a service has noticed"
    assert {unit: printed_lines.main_pid(box, unit) for unit in helm} == helm, "Helm's daemons wait for their store"
    until(lambda: other.stored() == Counter({"line 1": 2}), 60)
    until(lambda: {health(box)["checks"][name]["status"] for name in ("database", "journal")} == {"healthy"}, 60)


CHANGES = ("UPDATE {} SET message = ''", "DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}")


def test_what_is_stored_cannot_be_changed_by_helms_role(box: Sandbox) -> None:
    """The table, a retention class and a day, each by its own name."""
    before = int(box.sql("SELECT count(*) FROM log_entries"))
    leaf = box.sql("SELECT leaf FROM log_partitions ORDER BY day LIMIT 1")
    for table in ("log_entries", "log_entries_90", leaf):
        for change in CHANGES:
            done = box.psql(change.format(table), check=False)
            assert done.code and ("permission denied" in done.err or "must be owner" in done.err), (table, done.text)
    assert int(box.sql("SELECT count(*) FROM log_entries")) >= before > 0
