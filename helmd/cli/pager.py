"""Long output goes through the admin's pager, as journalctl(1) and git do."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_LESS = "FRSXMK"
"""As journalctl: quit when it fits, keep colours, chop long lines, leave the screen alone, long prompt, end on ^C."""


def pager_command() -> list[str]:
    """The pager to run, as words; empty for none."""
    named = os.environ.get("PAGER")
    if named is None:
        return ["less"] if shutil.which("less") else []
    try:
        words = shlex.split(named)
    except ValueError:
        return []
    return words if words and words != ["cat"] and shutil.which(words[0]) else []


def _environment() -> dict[str, str]:
    kept = {"LESS": _LESS, "LESSCHARSET": "utf-8", **os.environ}
    if not _own_login():
        # Somebody whom sudo lets run helmctl only must not get a shell out of less.
        kept["LESSSECURE"] = "1"
    return kept


def _own_login() -> bool:
    """Whether this process runs as whoever logged in (credentials(7), audit login uid)."""
    try:
        with open("/proc/self/loginuid") as file:
            return int(file.read()) == os.getuid()
    except (OSError, ValueError):
        return False


@contextmanager
def paged(wanted: bool) -> Iterator[BinaryIO]:
    """Where to write: the pager's input, or stdout where none is wanted or there is none.

    The end of a pager that is left early ends the block without an error.
    """
    command = pager_command() if wanted else []
    if not command:
        yield sys.stdout.buffer
        return
    pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=_environment())
    assert pager.stdin is not None
    try:
        try:
            yield pager.stdin  # type: ignore[misc]
        finally:
            pager.stdin.close()
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    finally:
        _wait(pager)


def _wait(pager: subprocess.Popen[bytes]) -> None:
    """Until the pager ends; ^C is for it to obey, since it owns the terminal."""
    while True:
        try:
            pager.wait()
            return
        except KeyboardInterrupt:
            continue
