"""Those who follow the log live are given every entry once and in order, however often they and Helm come and go."""

import hashlib
import json
import subprocess
import time
from typing import Any

from tests.campaign import scaled
from tests.system import log_sources, printed_lines
from tests.system.booted import Sandbox
from tests.system.printed_lines import FAULTY

SECONDS = scaled(600.0, 10.0)
RATE = 500
"""Entries a second that each of two prints, and that are posted."""
CLIENTS = scaled(200, 50)
FLOOD = scaled(60, 8)
"""Seconds of 1,000 lines."""
PATIENCE = scaled(300.0, 60.0)


class Following:
    """A program in the sandbox whose clients follow SERVICES until they have COUNT entries. All are there from now."""

    def __init__(self, box: Sandbox, services: list[str], count: int, within: float, **how: object) -> None:
        given = {"SERVICES": ",".join(services), "COUNT": count, "SECONDS": within, **how}
        variables = [f"{name}={value}" for name, value in given.items()]
        command = box.command("env", *variables, "python3", f"{FAULTY}/follower.py")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._within = within

    def finish(self) -> list[dict[str, Any]]:
        """What each client was given."""
        out, _ = self._process.communicate(timeout=self._within + 30)
        found: list[dict[str, Any]] = json.loads(out)
        return found

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def ids_of(box: Sandbox, services: list[str]) -> tuple[int, str]:
    """How many entries there are that a follower is to be given, and the digest of their ids in order."""
    where = f"service_name = ANY('{{{','.join(services)}}}') AND source IN ('journal', 'http')"
    ids = list(box.rows(f"SELECT id FROM log_entries WHERE {where} ORDER BY id"))
    return len(ids), hashlib.sha256("\n".join(ids).encode()).hexdigest()


def test_two_writers_and_restless_followers(box: Sandbox) -> None:
    """helmd-journal and helmd write, clients go and come back with Last-Event-ID, both daemons are killed at times."""
    talkers = log_sources.register_talkers(box, 2, int(RATE * SECONDS), RATE // 10, every=0.1)
    names = [talker.name for talker in talkers]
    posts = int(RATE * SECONDS)
    chance = printed_lines.seeded_random()
    followed = [*names, log_sources.poster_name()]
    count = posts * 3
    within = SECONDS + PATIENCE
    following = Following(box, followed, count, within, CLIENTS=4, RESTLESS=1.5)
    with following, log_sources.Poster(box, posts, RATE, name=followed[-1]) as posting:
        began = time.monotonic()
        box.shell(f"systemctl --user start {' '.join(f'hivematrix-{name}' for name in names)}")
        while (left := began + SECONDS - 2 - time.monotonic()) > 0:
            time.sleep(min(left, chance.uniform(2, 6)))
            printed_lines.kill_main_process(box, chance.choice(("helmd", "helmd-journal")))
        posting.finish(PATIENCE)
        found = following.finish()
    log_sources.check_each_stored_once([*talkers, posting.source], PATIENCE)
    print(found)
    there, digest = ids_of(box, followed)
    assert there == count
    for one in found:
        assert (one["count"], one["digest"]) == (there, digest), f"of {there:,} entries: {one}"
        assert one["connections"] > 2


def test_many_at_once_are_given_every_line(box: Sandbox) -> None:
    """1,000 lines a second to so many followers: none is notified that something was skipped."""
    (talker,) = log_sources.register_talkers(box, 1, 1_000 * FLOOD, 50, every=0.05)
    with Following(box, [talker.name], talker.count, FLOOD + PATIENCE, CLIENTS=CLIENTS) as following:
        box.shell(f"systemctl --user start hivematrix-{talker.name}")
        began = time.monotonic()
        found = following.finish()
        print(f"{CLIENTS} followers of {talker.count:,} lines: {time.monotonic() - began:.1f} s")
    log_sources.check_each_stored_once([talker], PATIENCE)
    there = ids_of(box, [talker.name])
    assert there[0] == talker.count
    for one in found:
        assert (one["count"], one["digest"]) == there, f"of {there[0]:,} entries: {one}"
        assert (one["connections"], one["skipped"], one["failures"]) == (1, 0, 0), one
