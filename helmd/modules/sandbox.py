"""The sandbox for untrusted code while a module is built: a transient unit of the account's manager (systemd-run(1)).

It has limits, and only sees this module's files, not the account's files, sockets and secrets.
"""

import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from helmd.model.errors import ModuleError
from helmd.model.layout import Layout
from helmd.model.printable import printable
from helmd.model.units.hardening import unit_lines
from helmd.systemd.bus import Manager
from helmd.systemd.programs import account_roots

TakeLine = Callable[[str], None]
"""Called with each line that a program prints."""
Watch = Callable[[], str]
"""Returns why a program has to be stopped, as a sentence; empty while it may run."""

MEMORY, TASKS = 2 << 30, 256
_LOOK = 0.5
"""Interval in seconds in which the watched conditions are checked."""
_LONGEST, _MOST = 2000, 2 << 20
"""Maximum number of characters of a line, and of all lines, that are passed on."""
_TAIL = 30
_STOP_SECONDS = 15.0
_RESULT = re.compile(r"Finished with result: ([a-z-]+)")
_MASK = "********"
_TOO_MUCH = "it printed too much"
_EXITED = "terminated with: code=exited"
"""systemd-run's message about a program that has ended by itself: for systemd, an end by SIGTERM is a success."""
_HIDDEN = ("/run/dbus", "/run/systemd/private", "/run/postgresql")
"""Sockets of the machine's own services."""

Result = Literal["success", "exit-code", "timeout", "oom-kill", "signal", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class BuildSandbox:
    """What a program sees and may use. Paths are absolute; others below home directories are hidden."""

    layout: Layout
    module: str
    user_namespaces: bool
    """Whether the host supports hiding files; without, a program can act as the account."""
    directory: Path
    """Its working directory, which must be visible to it."""
    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    network: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 600.0
    largest_file: int = 2 << 30
    bound_to: str = ""
    """The unit of the job to which it belongs, with which it is stopped."""
    secrets: tuple[str, ...] = ()
    """Secrets that are removed from its output."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a program. ``output`` is its stdout, if requested; ``tail`` are its last lines."""

    result: Result
    code: int
    tail: tuple[str, ...] = ()
    output: bytes = b""
    stopped: str = ""
    """Why it was stopped, as a sentence."""

    @property
    def good(self) -> bool:
        return self.result == "success"

    @property
    def why(self) -> str:
        """Why it failed, as the end of a sentence."""
        if self.stopped:
            return self.stopped
        reasons = {
            "timeout": "it took too long",
            "oom-kill": f"it needed more than {MEMORY >> 30} GB of memory",
            "signal": "it was killed",
            "failed": "it could not be started",
        }
        said = next((line for line in reversed(self.tail) if line.strip()), "")
        return reasons.get(self.result) or said or f"it exited with code {self.code}"


def sandbox_properties(sandbox: BuildSandbox) -> list[str]:
    """Return the properties of its unit, as systemd-run(1) takes them."""
    found = [f"{line.name}={line.value}" for line in unit_lines("default", sandbox.user_namespaces)]
    found += [
        f"MemoryMax={MEMORY}",
        "MemorySwapMax=0",
        f"TasksMax={TASKS}",
        f"RuntimeMaxSec={sandbox.seconds:g}",
        "TimeoutStopSec=5",
        f"LimitFSIZE={sandbox.largest_file}",
        "LimitCORE=0",
        # Services take precedence.
        "CPUWeight=20",
        "IOWeight=20",
        "Nice=10",
        "KillMode=control-group",
        "OOMPolicy=kill",
        f"WorkingDirectory={sandbox.directory}",
    ]
    if sandbox.user_namespaces:
        found += [f"TemporaryFileSystem={place}:ro,mode=0755" for place in account_roots(sandbox.layout)]
        found += [f"InaccessiblePaths=-{place}" for place in _HIDDEN]
        found += [f"BindPaths={place}" for place in sandbox.writable]
        found += [f"BindReadOnlyPaths={place}" for place in sandbox.readable]
        found += [] if sandbox.network else ["PrivateNetwork=yes"]
    return found


_CLEARED = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


def run_in(
    sandbox: BuildSandbox,
    words: Sequence[str],
    line: TakeLine,
    *,
    watch: Watch = lambda: "",
    given: bytes = b"",
    keep: int = 0,
    properties: Sequence[str] | None = None,
) -> Ran:
    """Run the command WORDS and wait for its end, with each line of its output passed to LINE.

    GIVEN is its standard input. KEEP: its standard output is returned instead, up to that many bytes. PROPERTIES
    replace those of SANDBOX. Raises ModuleError if systemd can't be asked, KeyboardInterrupt if the job was cancelled
    that it is part of.
    """
    unit = f"helm-sandbox-{sandbox.module}-{os.urandom(4).hex()}.service"
    chosen = sandbox_properties(sandbox) if properties is None else list(properties)
    # systemd-run reports the unit's result on its own stderr; the program's stderr is that of its output.
    shell = f'exec "$@" 2>{"/dev/null" if keep else "&1"}'
    if sandbox.bound_to:
        chosen += [f"BindsTo={sandbox.bound_to}", f"After={sandbox.bound_to}"]
    options = [word for each in chosen for word in ("-p", each)]
    options += [f"--setenv={name}={value}" for name, value in sandbox.environment.items()]
    options += ["-p", f"UnsetEnvironment={' '.join(name for name in _CLEARED if name not in sandbox.environment)}"]
    command = ["systemd-run", "--user", "--wait", "--pipe", "--collect", "--service-type=exec", f"--unit={unit}"]
    command += [*options, "--", "/bin/sh", "-c", shell, "sh", *words]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8"}, cwd="/",
        )  # fmt: skip
    except OSError as problem:
        raise ModuleError(f"systemd-run can't be run: {problem.strerror}") from None
    reading = _Reading(process, line, sandbox.secrets, keep)
    try:
        stopped = reading.follow(given, watch)
        if stopped:
            _stop(unit)
        code = process.wait(_STOP_SECONDS)
        if sandbox.bound_to and not stopped and _is_being_stopped(sandbox.bound_to):
            # systemd stops what is ordered after a unit before that unit: SIGTERM, which raises here, is on its way.
            time.sleep(_STOP_SECONDS)
    except BaseException:
        _stop(unit)
        process.kill()
        process.wait()
        raise
    finally:
        reading.close()
    said = reading.said.decode("utf-8", "replace")
    found = _RESULT.search(said)
    result: Result = "stopped" if stopped else "success" if code == 0 and _EXITED in said else "failed"
    if result == "failed" and found and found[1] in ("exit-code", "timeout", "oom-kill", "signal", "core-dump"):
        result = "signal" if found[1] == "core-dump" else found[1]  # type: ignore[assignment]
    if not code and result == "failed":
        result = "signal"
    tail = tuple(reading.tail) if result != "failed" else (*reading.tail, *said.splitlines()[-2:])
    return Ran(result, code, tail, bytes(reading.kept), stopped)


def is_sandbox_of(unit: str, module: str) -> bool:
    """Return whether UNIT runs a program of MODULE."""
    return re.fullmatch(rf"helm-sandbox-{re.escape(module)}-[0-9a-f]{{8}}\.service", unit) is not None


def _is_being_stopped(unit: str) -> bool:
    """Return whether UNIT, which runs this process, has a job in systemd, which can only be a stop job."""
    with Manager() as manager:
        return bool(manager.facts(unit).job)


def _stop(unit: str) -> None:
    subprocess.run(
        ["systemctl", "--user", "kill", "--signal=SIGKILL", unit], capture_output=True, timeout=30, check=False
    )
    subprocess.run(["systemctl", "--user", "stop", unit], capture_output=True, timeout=30, check=False)


class _Reading:
    """The output of a running program."""

    def __init__(self, process: "subprocess.Popen[bytes]", line: TakeLine, secrets: Sequence[str], keep: int) -> None:
        self._process, self._line, self._keep = process, line, keep
        self._secrets = sorted((each for each in secrets if len(each) > 3), key=len, reverse=True)
        self._rest = b""
        self._passed = 0
        self.tail: list[str] = []
        self.kept = bytearray()
        self.said = b""

    def follow(self, given: bytes, watch: Watch) -> str:
        """Read until both outputs are closed; return why the program was stopped, if it was."""
        assert self._process.stdin and self._process.stdout and self._process.stderr
        stdin, stdout, stderr = (
            each.fileno() for each in (self._process.stdin, self._process.stdout, self._process.stderr)
        )
        os.set_blocking(stdin, False)
        poll = select.poll()
        open_ones = {stdout, stderr}
        for descriptor in open_ones:
            poll.register(descriptor, select.POLLIN)
        if given:
            poll.register(stdin, select.POLLOUT)
        else:
            self._process.stdin.close()
        looked = time.monotonic()
        while open_ones:
            for descriptor, _ in poll.poll(1000 * _LOOK):
                if descriptor == stdin:
                    try:
                        given = given[os.write(stdin, given[:65536]) :]
                    except BlockingIOError:
                        continue
                    except OSError:
                        given = b""
                    if not given:
                        poll.unregister(stdin)
                        self._process.stdin.close()
                    continue
                data = os.read(descriptor, 65536)
                if not data:
                    poll.unregister(descriptor)
                    open_ones.discard(descriptor)
                elif descriptor == stderr:
                    self.said = (self.said + data)[-20_000:]
                else:
                    self._take(data)
            if self._keep and len(self.kept) > self._keep:
                return _TOO_MUCH
            if time.monotonic() - looked >= _LOOK:
                looked = time.monotonic()
                if why := watch():
                    return why
        self._flush()
        return watch()

    def _take(self, data: bytes) -> None:
        if self._keep:
            self.kept += data
            return
        lines = re.split(rb"[\r\n]+", self._rest + data)
        # From its beginning: a truncated secret would not be recognized.
        self._rest = lines.pop()[: 2 * _LONGEST]
        for each in lines:
            self._pass(each)

    def _flush(self) -> None:
        if self._rest and not self._keep:
            self._pass(self._rest)
            self._rest = b""

    def _pass(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        text = printable(text, _LONGEST).rstrip()
        if not text:
            return
        self.tail = [*self.tail[1 - _TAIL :], text]
        if self._passed > _MOST:
            return
        self._passed += len(text)
        self._line(text if self._passed <= _MOST else "(it goes on printing; what follows is left out)")

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
