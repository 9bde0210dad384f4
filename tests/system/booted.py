"""A booted sandbox as the system tests use it: running commands, services of a test's own, polling."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.replies import faults_in_output, faults_noted
from tests.system.entering import SCRIPT, enter
from tests.waiting import until as until
from tests.waiting import until_none as until_none

TOP = Path(__file__).resolve().parents[2]
_release = os.environ.get("HIVEMATRIX_TEST_RELEASE")
RELEASE = ("--release", _release) if _release else ()
"""Of the sandboxes that tests start: options of scripts/sandbox up and scripts/demo."""
NOTING = "/home/hive/sample-suite/faulty/noting.py"
NOT_CONNECTED = "psql: error: connection to server"
STARTS_WITHIN = 60.0
"""Seconds in which a PostgreSQL that was started, or was killed, takes connections again."""
PSQL = ("psql", "-h", "/run/user/1000/hivematrix/postgres-helm", "-U", "helm", "-d", "helm", "-Atq")


@dataclass(frozen=True)
class Done:
    """What a command did. ``seconds`` is as long as the caller waited."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return self.out + self.err

    def check(self, words: Sequence[str]) -> None:
        """Fails the test if it failed, showing what was said."""
        if self.code:
            pytest.fail(f"{' '.join(words)}: exit code {self.code}\n{self.text}")


@dataclass
class Sandbox:
    """A booted sandbox. Commands run as the account ``hive`` unless ``root``."""

    name: str
    demo_seconds: float = 0.0
    demo_output: str = ""
    demo_code: int = 0
    registered: list[str] = field(default_factory=list)
    checks_replies: bool = False
    """Whether what curl gets of helmd must be as the OpenAPI document says; other sandboxes may have older ones."""

    def script(self, verb: str, *words: str, timeout: float = 180.0) -> Done:
        """``scripts/sandbox VERB --name NAME WORDS``."""
        given = (verb, "--name", self.name, *words)
        return entered(given, timeout) if verb == "exec" else run([str(SCRIPT), *given], timeout)

    @property
    def leader(self) -> int:
        """The process id of its PID 1 on this machine."""
        found = re.search(r"PID 1:\s+([0-9]+)", self.script("status").out)
        assert found, "scripts/sandbox status names no PID 1"
        return int(found[1])

    def __call__(
        self, *words: str, root: bool = False, stdin: str | None = None, check: bool = True, timeout: float = 180.0
    ) -> Done:
        """Runs a command inside. With CHECK a failure fails the test, showing what was said."""
        done = entered(self.command(*words, root=root)[1:], timeout, stdin)
        if self.checks_replies:
            assert not (faults := faults_in_output(words, stdin, done.out) + faults_noted(done.err)), faults
        if check:
            done.check(words)
        return done

    def command(self, *words: str, root: bool = False) -> list[str]:
        """The command on this machine that runs WORDS inside."""
        as_whom = ["--root"] if root else []
        return [str(SCRIPT), "exec", "--name", self.name, *as_whom, "--", *words]

    def python(self, program: str, *words: str, **how: Any) -> Done:
        """Runs a PROGRAM of Python's, whose replies from helmd must be as the OpenAPI document says."""
        return self("python3", NOTING, "-c", program, *words, **how)

    def shell(self, command: str, **how: Any) -> Done:
        return self("bash", "-c", command, **how)

    def helmctl(self, *words: str, **how: Any) -> Done:
        return self("helmctl", *words, **how)

    def status(self, *names: str) -> dict[str, dict[str, Any]]:
        """``helmctl status --json`` by service."""
        done = self.helmctl("status", "--json", *names, check=False)
        return {entry["service_name"]: entry for entry in json.loads(done.out)}

    def sql(self, query: str) -> str:
        """Asks the log store; the bare value."""
        return self.psql(query).out.strip()

    def psql(self, query: str, check: bool = True, **how: Any) -> Done:
        """Asks the log store as Helm's daemons do. With CHECK it is to answer, once it takes connections."""
        words = (*PSQL, "-c", query)
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            done = self(*words, check=False, **how)
            if not check or not done.err.startswith(NOT_CONNECTED) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if check:
            done.check(words)
        return done

    def rows(self, query: str) -> Iterator[str]:
        """A line for each row, of however many there are."""
        command = self.command(*PSQL, "-v", "FETCH_COUNT=5000", "-c", query)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as asked:
            assert asked.stdout is not None
            for line in asked.stdout:
                yield line.removesuffix("\n")
        assert asked.returncode == 0, f"{query}: exit code {asked.returncode}"

    def write(self, path: str, text: str, root: bool = False) -> None:
        self("sh", "-c", f'mkdir -p "$(dirname {path})" && cat > {path}', stdin=text, root=root)

    def register(self, name: str, text: str) -> None:
        """Adds services by ``services.d/NAME.toml`` and applies; gone again at the end of the test."""
        self.write(f"/home/hive/.config/hivematrix/services.d/{name}.toml", text)
        self.registered.append(name)
        self.helmctl("apply")

    def unregister(self) -> None:
        """Takes away what tests added: services stopped, units removed."""
        if not self.registered:
            return
        for name in self.registered:
            path = f"/home/hive/.config/hivematrix/services.d/{name}.toml"
            self.shell(
                f"helmctl stop $(sed -n 's/^\\[services\\.\\([a-z0-9_-]*\\)\\]$/\\1/p' {path}); rm -f {path}",
                check=False,
            )
        self.registered.clear()
        self.helmctl("apply")


def fetched(box: Sandbox, path: str, to: Path, root: bool = False) -> Path:
    """A file of the sandbox on this machine."""
    with to.open("wb") as file:
        subprocess.run(box.command("cat", path, root=root), stdout=file, check=True, timeout=120)
    return to


def superuser(box: Sandbox, query: str, database: str = "postgres") -> str:
    """What the suite's PostgreSQL answers its superuser, who logs in by the password file."""
    words = ("psql", "-h", "/run/user/1000/hivematrix/postgres-suite", "-p", "5499", "-U", "postgres", "-d", database)
    return box(
        "env", "PGPASSFILE=/home/hive/.config/hivematrix/secrets/postgres.pgpass", *words, "-wAtqc", query
    ).out.strip()


def entered(words: Sequence[str], timeout: float, stdin: str | None = None) -> Done:
    """What ``scripts/sandbox WORDS`` does."""
    began = time.monotonic()
    code, out, err = enter(words, stdin, timeout)
    return Done(code, out, err, time.monotonic() - began)


def run(words: list[str], timeout: float, stdin: str | None = None) -> Done:
    """Runs a command on this machine."""
    began = time.monotonic()
    done = subprocess.run(
        words,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


class Poller:
    """Asks an address every 10 ms from a process of its own, and notes when it first answered well."""

    def __init__(self, box: Sandbox, url: str) -> None:
        program = (
            "import sys,time,urllib.request,ssl\n"
            "c=ssl._create_unverified_context()\n"
            "while True:\n"
            "  try:\n"
            "    urllib.request.urlopen(sys.argv[1],timeout=1,context=c).read(); break\n"
            "  except Exception: time.sleep(0.01)\n"
            "print(time.clock_gettime(time.CLOCK_MONOTONIC))\n"
        )
        self._process = subprocess.Popen(
            box.command("python3", "-c", program, url),
            stdout=subprocess.PIPE,
            text=True,
        )

    def first_good_answer(self, timeout: float = 120.0) -> float:
        """When, on the kernel's monotonic clock, which sandbox and host share."""
        out, _ = self._process.communicate(timeout=timeout)
        return float(out)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
