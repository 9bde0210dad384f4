"""Services that print and programs that post all kinds of entries, and checks that each is stored once."""

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
from tests.system.printed_lines import FAULTY

NUMBER = re.compile(r"entry (\d+) of ")

Facts = tuple[Any, ...]
"""Level, message, trace id and stream of an entry."""


@dataclass(frozen=True)
class Source:
    """Entries 1 to ``count`` of a service with a unique name. ``wanted`` returns the expected facts of each."""

    box: Sandbox
    name: str
    count: int
    way: str
    """The column ``source``: ``journal`` or ``http``."""
    wanted: Callable[[str, int], Facts]

    @property
    def _where(self) -> str:
        return f"service_name = '{self.name}' AND source = '{self.way}'"

    def stored(self) -> int:
        """Return how many the store has."""
        return int(self.box.sql(f"SELECT count(*) FROM log_entries WHERE {self._where}"))

    def _check_counts(self) -> None:
        """Check that the rollups by minute and by hour count the service's entries, including those by systemd."""
        of_it = f"WHERE service_name = '{self.name}'"
        tables = ("log_counts_minute", "log_counts_hour")
        selects = [f"SELECT count(*) FROM log_entries {of_it} AND duplicate_of IS NULL"]
        selects += [f"SELECT sum(entries) FROM {table} {of_it}" for table in tables]
        found = self.box.sql(" UNION ALL ".join(selects)).splitlines()
        assert len(found) == 3 and len(set(found)) == 1, f"{self.name}: stored, and counted by minute and hour: {found}"

    def check(self) -> None:
        """Fail unless the store has each entry once with the expected facts, no others, and the rollups are right."""
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
        differences = [
            f"{len(some):,} {what}: {some[:4]}" for what, some in (("missing", missing), ("extra", wrong)) if some
        ]
        assert not differences, f"of {self.count:,} entries of {self.name} " + "; ".join(differences)
        self._check_counts()


def register_talkers(box: Sandbox, number: int, count: int, burst: int, every: float = 1.0) -> list[Source]:
    """Register NUMBER services that print COUNT entries each: BURST at once, every EVERY seconds."""
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


class Poster:
    """A program that posts COUNT entries, RATE a second, with retries; it runs until `finish`."""

    def __init__(self, box: Sandbox, count: int, rate: int, name: str | None = None, batch: int = 10) -> None:
        name = name or poster_name()
        self.source = Source(box, name, count, "http", _posted)
        environment = [f"NAME={name}", f"COUNT={count}", f"RATE={rate}", f"BATCH={batch}"]
        command = ["env", *environment, "python3", NOTING, f"{FAULTY}/poster.py"]
        self._process = subprocess.Popen(
            box.command(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self, within: float) -> int:
        """Wait for the last response; return how often a batch was repeated. Raises subprocess.TimeoutExpired."""
        out, errors = self._process.communicate(timeout=within)
        said = json.loads(out)
        assert not said["refused"], f"{said['refused'][:5]} {errors}"
        if self.source.box.checks_replies:
            assert not (faults := faults_noted(errors)), faults
        return int(said["repeated"])

    def __enter__(self) -> "Poster":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def poster_name() -> str:
    return f"poster-{secrets.token_hex(3)}"


def _posted(name: str, number: int) -> Facts:
    entry = poster.posted(name, number)
    return entry["level"], entry["message"], entry["trace_id"], None


def check_each_stored_once(sources: list[Source], within: float) -> None:
    """Wait until the store has as many entries as SOURCES, and check each of them."""
    for source in sources:
        until(lambda source=source: source.stored() >= source.count, within, pause=0.5)  # type: ignore[misc]
    # Duplicates would be stored by then.
    until(lambda: _at_rest(sources[0].box), within)
    for source in sources:
        source.check()


def _at_rest(box: Sandbox) -> bool:
    """Return whether helmd-journal has no more entries to read."""
    shown = box("systemctl", "--user", "show", "-P", "StatusText", "helmd-journal").out
    return "lag 0.0 s" in shown
