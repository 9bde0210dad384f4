"""Services that print numbered lines, and those lines in the store and in the journal, for tests that none is lost."""

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

MainProcesses = dict[str, tuple[int, int]]
"""Main process and number of restarts by service."""


@dataclass(frozen=True)
class Printer:
    """A service that prints ``line 1``, ``line 2`` …, registered for one test. Its name is unique."""

    box: Sandbox
    name: str

    @property
    def unit(self) -> str:
        return f"hivematrix-{self.name}.service"

    def stored(self, boot_id: str = "") -> Counter[str]:
        """Return how often the store has each line, of all boots or one."""
        short = f"(SELECT short_id FROM log_boots WHERE long_id = '{boot_id}')"
        of_boot = f" AND boot_id = {short}" if boot_id else ""
        return Counter(
            self.box.sql(
                f"SELECT message FROM log_entries WHERE service_name = '{self.name}' AND source = 'journal'{of_boot}"
            ).splitlines()
        )

    def journal(self, boot_id: str) -> Counter[str]:
        """Return how often the journal has each line, by the matches of ``journalctl --user -u``."""
        # All matches of that command: after a power cut one index of the journal can lack entries of another.
        matches = (f"_SYSTEMD_USER_UNIT={self.unit}", "_UID=1000", f"_BOOT_ID={boot_id}", "_TRANSPORT=stdout")
        shown = self.box("journalctl", "--quiet", "-o", "json", "--output-fields=MESSAGE", *matches, timeout=120).out
        # An entry that was being written at a power cut may be left without its message.
        entries = [each for line in shown.splitlines() if "MESSAGE" in (each := json.loads(line))]
        # A line that journald wrote to two files counts once (helmd/journal/doubled.py); no line is printed twice at a
        # time.
        return Counter(message for message, _ in {(each["MESSAGE"], each["__MONOTONIC_TIMESTAMP"]) for each in entries})

    def count(self) -> int:
        """Return how many lines the store has."""
        where = f"service_name = '{self.name}' AND source = 'journal'"
        return int(self.box.sql(f"SELECT count(*) FROM log_entries WHERE {where}"))


def register(box: Sandbox, lines: int, rate: int = 1000) -> Printer:
    """Register a printer, without starting it. It keeps running after LINES; 0 stands for no limit.

    RATE is in lines a second.
    """
    name = f"printer-{secrets.token_hex(3)}"
    box.register(
        name,
        f'[services.{name}]\ntype = "command"\npath = "{FAULTY}"\n'
        'start_command = ["/usr/bin/python3", "printer.py"]\nhealth = { check = "process" }\n'
        f'environment = {{ RATE = "{rate}", COUNT = "{lines}", HOLD = "1" }}\n',
    )
    return Printer(box, name)


def numbered_lines(count: int) -> Counter[str]:
    """Return ``line 1`` to ``line COUNT``, each once."""
    return Counter(f"line {number}" for number in range(1, count + 1))


def check_same_lines(found: Counter[str], wanted: Counter[str]) -> None:
    """Fail with the missing and extra lines unless both have the same lines equally often."""
    missing, extra = wanted - found, found - wanted
    differences = [
        f"{len(some)} {what} ({sorted(some)[:5]} …)" for what, some in (("missing", missing), ("extra", extra)) if some
    ]
    assert not differences, f"of {len(wanted)} lines " + ", ".join(differences)


def check_complete(printer: Printer, boot_id: str) -> int:
    """Fail unless the store gets all lines of a boot from a printer that has ended; return their number."""
    written = printer.journal(boot_id)
    check_same_lines(written, numbered_lines(len(written)))
    until(lambda: printer.stored(boot_id).total() >= len(written), 60)
    # Duplicates would be stored by then.
    time.sleep(3)
    check_same_lines(printer.stored(boot_id), written)
    return len(written)


def main_processes(box: Sandbox, *more: str) -> MainProcesses:
    """Return the main processes of the suite's services and MORE, and how often systemd restarted them."""
    names = (*SUITE, *more)
    units = [f"hivematrix-{name}.service" for name in names]
    shown = box("systemctl", "--user", "show", "--property=MainPID,NRestarts", *units).out.strip().split("\n\n")
    facts = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown]
    return {name: (int(fact["MainPID"]), int(fact["NRestarts"])) for name, fact in zip(names, facts, strict=True)}


def kill_main_process(box: Sandbox, unit: str) -> int:
    """Kill a unit's main process by SIGKILL, once it has one; return its process id."""
    script = (
        f"until pid=$(systemctl --user show -P MainPID {unit}) && [ $pid != 0 ]; do sleep 0.02; done; "
        "kill -9 $pid; echo $pid"
    )
    return int(box.shell(script, timeout=60).out)


def main_pid(box: Sandbox, unit: str) -> int:
    return int(box("systemctl", "--user", "show", "-P", "MainPID", unit).out)


def restart_count(box: Sandbox, unit: str) -> int:
    """Return how often systemd has restarted a unit automatically (NRestarts) since its last start."""
    return int(box("systemctl", "--user", "show", "-P", "NRestarts", unit).out)


def boot_id(box: Sandbox) -> str:
    return box("cat", "/proc/sys/kernel/random/boot_id").out.strip().replace("-", "")


def seeded_random() -> random.Random:
    """Return a generator with HIVEMATRIX_TEST_SEED as its seed, or with a new one, and print the seed."""
    seed = int(os.environ.get("HIVEMATRIX_TEST_SEED", secrets.randbelow(1_000_000)))
    print(f"HIVEMATRIX_TEST_SEED={seed}")
    return random.Random(seed)


def wait_until_healthy(box: Sandbox, within: float) -> float:
    """Wait until ``helmctl status`` exits with 0; return the seconds that took."""
    began = time.monotonic()
    until(lambda: box.helmctl("status", check=False).code == 0, within, pause=0.5)
    return time.monotonic() - began
