"""Services that print and programs that post all kinds of entries, and whether the store has each of them once."""

import json
import re
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.replies import faults_noted
from tests.suite.faulty import poster, talker
from tests.system.booted import NOTING, Sandbox, until
from tests.system.printing import FAULTY

NUMBER = re.compile(r"entry (\d+) of ")

Facts = tuple[Any, ...]
"""Level, message, trace id and stream of an entry."""


@dataclass(frozen=True)
class Source:
    """Entries 1 to ``count`` of a service, whose name is used only once. ``wanted`` says what each is to be."""

    box: Sandbox
    name: str
    count: int
    way: str
    """By which they come: ``journal`` or ``http``."""
    wanted: Callable[[str, int], Facts]

    @property
    def _where(self) -> str:
        return f"service_name = '{self.name}' AND source = '{self.way}'"

    def stored(self) -> int:
        """How many the store has."""
        return int(self.box.sql(f"SELECT count(*) FROM log_entries WHERE {self._where}"))

    def _check_counts(self) -> None:
        """By minute and by hour the store has counted what it has, with what systemd said of the service."""
        of_it = f"WHERE service_name = '{self.name}'"
        tables = ("log_counts_minute", "log_counts_hour")
        selects = [f"SELECT count(*) FROM log_entries {of_it} AND duplicate_of IS NULL"]
        selects += [f"SELECT sum(entries) FROM {table} {of_it}" for table in tables]
        found = self.box.sql(" UNION ALL ".join(selects)).splitlines()
        assert len(found) == 3 and len(set(found)) == 1, f"{self.name}: stored, and counted by minute and hour: {found}"

    def check(self) -> None:
        """Fails unless the store has each entry once, as it was meant, and nothing else; counts as well."""
        seen = bytearray(self.count + 1)
        wrong: list[str] = []
        query = f"SELECT json_build_array(level, message, trace_id, stream) FROM log_entries WHERE {self._where}"
        for line in self.box.rows(query):
            facts = tuple(json.loads(line))
            found = NUMBER.match(facts[1])
            number = int(found[1]) if found else 0
            if not 0 < number <= self.count or facts != self.wanted(self.name, number):
                wrong.append(f"{facts}")
            elif seen[number]:
                wrong.append(f"entry {number} once more")
            else:
                seen[number] = 1
        missing = [number for number in range(1, self.count + 1) if not seen[number]]
        notified = [
            f"{len(some):,} {what}: {some[:4]}" for what, some in (("missing", missing), ("too much", wrong)) if some
        ]
        assert not notified, f"of {self.count:,} entries of {self.name} " + "; ".join(notified)
        self._check_counts()


def talkers(box: Sandbox, number: int, count: int, burst: int, every: float = 1.0) -> list[Source]:
    """So many registered services, each to print COUNT entries: BURST of them, as fast as it goes, EVERY seconds."""
    token = secrets.token_hex(3)
    names = [f"talker-{token}-{n}" for n in range(number)]
    box.register(
        f"talkers-{token}",
        "".join(
            f'[services.{name}]\ntype = "command"\npath = "{FAULTY}"\n'
            'start_command = ["/usr/bin/python3", "talker.py"]\nhealth = { check = "process" }\n'
            f'environment = {{ NAME = "{name}", COUNT = "{count}", BURST = "{burst}", EVERY = "{every}" }}\n'
            for name in names
        ),
    )
    return [Source(box, name, count, "journal", talker.wanted) for name in names]


class Posting:
    """A program that posts COUNT entries, RATE a second, and does not give up; it is at work until `finish`."""

    def __init__(self, box: Sandbox, count: int, rate: int, name: str | None = None, batch: int = 10) -> None:
        name = name or poster_name()
        self.source = Source(box, name, count, "http", _posted)
        environment = [f"NAME={name}", f"COUNT={count}", f"RATE={rate}", f"BATCH={batch}"]
        command = ["env", *environment, "python3", NOTING, f"{FAULTY}/poster.py"]
        self._process = subprocess.Popen(
            box.command(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self, within: float) -> int:
        """Waits for the last answer; how often a batch had to be sent again."""
        out, errors = self._process.communicate(timeout=within)
        said = json.loads(out)
        assert not said["refused"], f"{said['refused'][:5]} {errors}"
        if self.source.box.checks_replies:
            assert not (faults := faults_noted(errors)), faults
        return int(said["repeated"])

    def __enter__(self) -> "Posting":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def poster_name() -> str:
    return f"poster-{secrets.token_hex(3)}"


def _posted(name: str, number: int) -> Facts:
    entry = poster.posted(name, number)
    return entry["level"], entry["message"], entry["trace_id"], None


def all_once(sources: list[Source], within: float) -> None:
    """Waits until the store has as many entries as there are, and looks at each of them."""
    for source in sources:
        until(lambda source=source: source.stored() >= source.count, within, pause=0.5)  # type: ignore[misc]
    # Whatever would be stored a second time is stored by now.
    until(lambda: _at_rest(sources[0].box), within)
    for source in sources:
        source.check()


def _at_rest(box: Sandbox) -> bool:
    """Whether helmd-journal has nothing more to read."""
    shown = box("systemctl", "--user", "show", "-P", "StatusText", "helmd-journal").out
    return "lag 0.0 s" in shown
