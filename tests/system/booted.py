"""A booted sandbox for system tests: running commands, registering services for a test, polling."""

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
from tests.system.exec_client import SCRIPT, run_in_sandbox
from tests.waiting import until as until
from tests.waiting import until_none as until_none

TOP = Path(__file__).resolve().parents[2]
_release = os.environ.get("HIVEMATRIX_TEST_RELEASE")
RELEASE = ("--release", _release) if _release else ()
"""Options of scripts/sandbox up and scripts/demo for the Debian release of sandboxes that tests start."""
NOTING = "/home/hive/sample-suite/faulty/noting.py"
NOT_CONNECTED = "psql: error: connection to server"
STARTS_WITHIN = 60.0
"""Maximum seconds until PostgreSQL accepts connections after it was started or killed."""
PSQL = ("psql", "-h", "/run/user/1000/hivematrix/postgres-helm", "-U", "helm", "-d", "helm", "-Atq")


@dataclass(frozen=True)
class CommandResult:
    """The exit status and output of a command. ``seconds`` is its duration, including the start."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return self.out + self.err

    def check(self, words: Sequence[str]) -> None:
        """Fail the test with the output if the command failed."""
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
    """Whether replies of helmd to curl are checked against the OpenAPI document; other sandboxes may have an older
    version.
    """

    def script(self, verb: str, *words: str, timeout: float = 180.0) -> CommandResult:
        """Run ``scripts/sandbox VERB --name NAME WORDS``. Raises subprocess.TimeoutExpired."""
        given = (verb, "--name", self.name, *words)
        return run_script(given, timeout) if verb == "exec" else run([str(SCRIPT), *given], timeout)

    @property
    def leader(self) -> int:
        """Return the process id of its PID 1 on this machine."""
        found = re.search(r"PID 1:\s+([0-9]+)", self.script("status").out)
        assert found, "scripts/sandbox status names no PID 1"
        return int(found[1])

    def __call__(
        self, *words: str, root: bool = False, stdin: str | None = None, check: bool = True, timeout: float = 180.0
    ) -> CommandResult:
        """Run a command inside. With CHECK a failure fails the test, with the output."""
        done = run_script(self.command(*words, root=root)[1:], timeout, stdin)
        if self.checks_replies:
            assert not (faults := faults_in_output(words, stdin, done.out) + faults_noted(done.err)), faults
        if check:
            done.check(words)
        return done

    def command(self, *words: str, root: bool = False) -> list[str]:
        """Return the command on this machine that runs WORDS inside."""
        account = ["--root"] if root else []
        return [str(SCRIPT), "exec", "--name", self.name, *account, "--", *words]

    def python(self, program: str, *words: str, **how: Any) -> CommandResult:
        """Run PROGRAM in Python; helmd's replies to it are checked against the OpenAPI document."""
        return self("python3", NOTING, "-c", program, *words, **how)

    def shell(self, command: str, **how: Any) -> CommandResult:
        return self("bash", "-c", command, **how)

    def helmctl(self, *words: str, **how: Any) -> CommandResult:
        return self("helmctl", *words, **how)

    def status(self, *names: str) -> dict[str, dict[str, Any]]:
        """Return the entries of ``helmctl status --json`` by service."""
        done = self.helmctl("status", "--json", *names, check=False)
        return {entry["service_name"]: entry for entry in json.loads(done.out)}

    def sql(self, query: str) -> str:
        """Return the result of a query of the log store, unaligned and without headers."""
        return self.psql(query).out.strip()

    def psql(self, query: str, check: bool = True, **how: Any) -> CommandResult:
        """Query the log store as Helm's role. With CHECK, retry while it refuses connections, and fail on an error."""
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
        """Yield a line for each row, fetched in batches."""
        command = self.command(*PSQL, "-v", "FETCH_COUNT=5000", "-c", query)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as asked:
            assert asked.stdout is not None
            for line in asked.stdout:
                yield line.removesuffix("\n")
        assert asked.returncode == 0, f"{query}: exit code {asked.returncode}"

    def write(self, path: str, text: str, root: bool = False) -> None:
        self("sh", "-c", f'mkdir -p "$(dirname {path})" && cat > {path}', stdin=text, root=root)

    def register(self, name: str, text: str) -> None:
        """Add services by ``services.d/NAME.toml`` and apply; the fixture removes them at the end of the test."""
        self.write(f"/home/hive/.config/hivematrix/services.d/{name}.toml", text)
        self.registered.append(name)
        self.helmctl("apply")

    def unregister(self) -> None:
        """Stop services that tests registered, and remove their units."""
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


def fetch_file(box: Sandbox, path: str, to: Path, root: bool = False) -> Path:
    """Copy a file of the sandbox to TO on this machine; return TO."""
    with to.open("wb") as file:
        subprocess.run(box.command("cat", path, root=root), stdout=file, check=True, timeout=120)
    return to


def superuser_sql(box: Sandbox, query: str, database: str = "postgres") -> str:
    """Return the result of a query of the suite's PostgreSQL as its superuser, who logs in by the password file."""
    words = ("psql", "-h", "/run/user/1000/hivematrix/postgres-suite", "-p", "5499", "-U", "postgres", "-d", database)
    return box(
        "env", "PGPASSFILE=/home/hive/.config/hivematrix/secrets/postgres.pgpass", *words, "-wAtqc", query
    ).out.strip()


def run_script(words: Sequence[str], timeout: float, stdin: str | None = None) -> CommandResult:
    """Run ``scripts/sandbox WORDS`` without a new Python process. Raises subprocess.TimeoutExpired."""
    began = time.monotonic()
    code, out, err = run_in_sandbox(words, stdin, timeout)
    return CommandResult(code, out, err, time.monotonic() - began)


def run(words: list[str], timeout: float, stdin: str | None = None) -> CommandResult:
    """Run a command on this machine. Raises subprocess.TimeoutExpired."""
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
    return CommandResult(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


class Poller:
    """Requests a URL every 10 ms from a process of its own until the first success."""

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

    def first_success(self, timeout: float = 120.0) -> float:
        """Return the time of the first success by CLOCK_MONOTONIC, which sandbox and host share."""
        out, _ = self._process.communicate(timeout=timeout)
        return float(out)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
