"""A printing service, and its lines as the store and the journal have them: for the tests of what is never lost."""

import json
import os
import random
import secrets
import time
from collections import Counter
from dataclasses import dataclass

from tests.system.booted import Sandbox, until

SUITE = ("postgres", "keycloak", "core", "nexus", "codex", "ledger", "knowledgetree", "ticker")
FAULTY = "/home/hive/sample-suite/faulty"

Lives = dict[str, tuple[int, int]]
"""Main process and number of restarts by service."""


@dataclass(frozen=True)
class Printer:
    """A service that prints ``line 1``, ``line 2`` …, registered for one test. Its name is used only once."""

    box: Sandbox
    name: str

    @property
    def unit(self) -> str:
        return f"hivematrix-{self.name}.service"

    def stored(self, boot_id: str = "") -> Counter[str]:
        """How often the store has each line, of all boots or one."""
        short = f"(SELECT short_id FROM log_boots WHERE long_id = '{boot_id}')"
        of_boot = f" AND boot_id = {short}" if boot_id else ""
        return Counter(
            self.box.sql(
                f"SELECT message FROM log_entries WHERE service_name = '{self.name}' AND source = 'journal'{of_boot}"
            ).splitlines()
        )

    def journal(self, boot_id: str) -> Counter[str]:
        """How often the journal has each line, as ``journalctl --user -u`` sees it."""
        # All of them, as that command has it: after a power cut one index of the journal can lack what another has.
        matches = (f"_SYSTEMD_USER_UNIT={self.unit}", "_UID=1000", f"_BOOT_ID={boot_id}", "_TRANSPORT=stdout")
        shown = self.box("journalctl", "--quiet", "-o", "json", "--output-fields=MESSAGE", *matches, timeout=120).out
        # An entry that was being written at a power cut may be left without its message.
        entries = [each for line in shown.splitlines() if "MESSAGE" in (each := json.loads(line))]
        # A line that journald wrote into two files is one (helmd/journal/doubled.py); no line is printed twice at once.
        return Counter(message for message, _ in {(each["MESSAGE"], each["__MONOTONIC_TIMESTAMP"]) for each in entries})

    def count(self) -> int:
        """How many lines the store has."""
        where = f"service_name = '{self.name}' AND source = 'journal'"
        return int(self.box.sql(f"SELECT count(*) FROM log_entries WHERE {where}"))


def register(box: Sandbox, lines: int, rate: int = 1000) -> Printer:
    """A printer that stays, silent, after its last line; LINES 0 for one without end. Not yet started."""
    name = f"printer-{secrets.token_hex(3)}"
    box.register(
        name,
        f'[services.{name}]\ntype = "command"\npath = "{FAULTY}"\n'
        'start_command = ["/usr/bin/python3", "printer.py"]\nhealth = { check = "process" }\n'
        f'environment = {{ RATE = "{rate}", COUNT = "{lines}", HOLD = "1" }}\n',
    )
    return Printer(box, name)


def lines(count: int) -> Counter[str]:
    """``line 1`` to ``line COUNT``, each once."""
    return Counter(f"line {number}" for number in range(1, count + 1))


def compare(found: Counter[str], wanted: Counter[str]) -> None:
    """Fails unless both have the same lines equally often, saying what is missing and what is too much."""
    missing, extra = wanted - found, found - wanted
    notified = [
        f"{len(some)} {what} ({sorted(some)[:5]} …)" for what, some in (("missing", missing), ("extra", extra)) if some
    ]
    assert not notified, f"of {len(wanted)} lines " + ", ".join(notified)


def whole(printer: Printer, boot_id: str) -> int:
    """Fails unless the store comes to have what a printer that has ended printed in a boot; how many lines that is."""
    written = printer.journal(boot_id)
    compare(written, lines(len(written)))
    until(lambda: printer.stored(boot_id).total() >= len(written), 60)
    # Whatever would be stored a second time is stored by now.
    time.sleep(3)
    compare(printer.stored(boot_id), written)
    return len(written)


def lives(box: Sandbox, *more: str) -> Lives:
    """Who runs, and how often systemd had to start it again."""
    names = (*SUITE, *more)
    units = [f"hivematrix-{name}.service" for name in names]
    shown = box("systemctl", "--user", "show", "--property=MainPID,NRestarts", *units).out.strip().split("\n\n")
    facts = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown]
    return {name: (int(fact["MainPID"]), int(fact["NRestarts"])) for name, fact in zip(names, facts, strict=True)}


def kill_main(box: Sandbox, unit: str) -> int:
    """kill -9 of a unit's main process, once it has one; its process id."""
    script = (
        f"until pid=$(systemctl --user show -P MainPID {unit}) && [ $pid != 0 ]; do sleep 0.02; done; "
        "kill -9 $pid; echo $pid"
    )
    return int(box.shell(script, timeout=60).out)


def main_pid(box: Sandbox, unit: str) -> int:
    return int(box("systemctl", "--user", "show", "-P", "MainPID", unit).out)


def restarts(box: Sandbox, unit: str) -> int:
    """How often systemd restarted it by itself since it was last started by hand."""
    return int(box("systemctl", "--user", "show", "-P", "NRestarts", unit).out)


def boot_id(box: Sandbox) -> str:
    return box("cat", "/proc/sys/kernel/random/boot_id").out.strip().replace("-", "")


def chance() -> random.Random:
    """Reproducible random times: HIVEMATRIX_TEST_SEED, else a new seed that is shown."""
    seed = int(os.environ.get("HIVEMATRIX_TEST_SEED", secrets.randbelow(1_000_000)))
    print(f"HIVEMATRIX_TEST_SEED={seed}")
    return random.Random(seed)


def all_healthy(box: Sandbox, within: float) -> float:
    """Waits until ``helmctl status`` is content; the seconds that took."""
    began = time.monotonic()
    until(lambda: box.helmctl("status", check=False).code == 0, within, pause=0.5)
    return time.monotonic() - began
