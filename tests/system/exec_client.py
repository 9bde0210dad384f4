"""`scripts/sandbox exec` without a new Python process for each command: scripts/sandboxlib/serve.py forks instead."""

import json
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/sandbox"


class ExecResult(NamedTuple):
    """The exit status of a command, and what it printed."""

    code: int
    out: str
    err: str


@cache
def _server() -> socket.socket:
    """Return the socket of this process's server, which ends with this process."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        subprocess.run([str(SCRIPT), "_serve", str(there.fileno())], pass_fds=[there.fileno()], check=True)
    return here


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Yield a pipe's read end, which is closed afterwards, and its write end, which the caller closes."""
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        os.close(read)


def _file(content: bytes) -> int:
    """Return a file in memory (memfd_create(2)) with CONTENT, at its beginning."""
    made = os.memfd_create("given")
    with open(made, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(made, 0, os.SEEK_SET)
    return made


def run_in_sandbox(words: Sequence[str], stdin: str | None, timeout: float) -> ExecResult:
    """Run ``scripts/sandbox WORDS`` with STDIN, as subprocess.run does. Raises subprocess.TimeoutExpired."""
    with _pipe() as out, _pipe() as err, _pipe() as report:
        source = os.open(os.devnull, os.O_RDONLY) if stdin is None else _file(stdin.encode())
        given = [_file(json.dumps(words).encode()), source, out[1], err[1], report[1]]
        try:
            socket.send_fds(_server(), [b"x"], given)
        finally:
            for descriptor in given:
                os.close(descriptor)
        found = {out[0]: bytearray(), err[0]: bytearray(), report[0]: bytearray()}
        try:
            _read(found, time.monotonic() + timeout)
        except BaseException as error:
            with suppress(ProcessLookupError, IndexError):
                os.kill(int(found[report[0]].split()[0]), signal.SIGKILL)
            if isinstance(error, TimeoutError):
                raise subprocess.TimeoutExpired(list(words), timeout) from None
            raise
        numbers = found[report[0]].split()
        # Without an exit status the process was killed.
        code = int(numbers[1]) if len(numbers) > 1 else -signal.SIGKILL
        return ExecResult(code, _text(found[out[0]]), _text(found[err[0]]))


def _text(printed: bytearray) -> str:
    """Decode output as subprocess.run does with text=True."""
    return printed.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _read(found: dict[int, bytearray], deadline: float) -> None:
    """Read from each descriptor until all are closed. Raises TimeoutError."""
    with selectors.DefaultSelector() as waiting:
        for descriptor in found:
            waiting.register(descriptor, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                found[key.fd] += chunk
                if not chunk:
                    waiting.unregister(key.fd)
