"""Paging long output, as journalctl(1) and git do."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import subprocess

_LESS = "FRSXMK"
"""journalctl's options: quit if it fits, keep colours, chop long lines, no screen clearing, long prompt, quit on ^C."""


def pager_command() -> list[str]:
    """Return the pager's command line; empty for no pager."""
    # Imported here: it loads every kind of compression, and most commands use no pager.
    import shutil

    named = os.environ.get("PAGER")
    try:
        words = ["less"] if named is None else shlex.split(named)
    except ValueError:
        return []
    if not words or words == ["cat"] or not shutil.which(words[0]):
        return []
    if os.path.basename(words[0]) == "less":
        # LESS of the user's own may lack it, and colours would be shown as their bytes.
        words.insert(1, "-R")
    return words


def _environment() -> dict[str, str]:
    variables = {"LESS": _LESS, "LESSCHARSET": "utf-8", **os.environ}
    if not _own_login():
        # A user whom sudo permits to run helmctl only must not be able to start a shell from less.
        variables["LESSSECURE"] = "1"
    return variables


def _own_login() -> bool:
    """Return whether this process runs as the user who logged in (loginuid in proc(5))."""
    try:
        with open("/proc/self/loginuid") as file:
            return int(file.read()) == os.getuid()
    except (OSError, ValueError):
        return False


@contextmanager
def paged(wanted: bool, at_end: bool = False) -> Iterator[BinaryIO]:
    """Yield the pager's input, or stdout if no pager is WANTED or available. AT_END: less begins at the end.

    If the user quits the pager, the block ends without an error.
    """
    command = pager_command() if wanted else []
    if at_end and command and os.path.basename(command[0]) == "less":
        command.append("+G")
    if not command:
        yield sys.stdout.buffer
        return
    # Imported here, since most commands use no pager.
    import subprocess

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


def _wait(pager: "subprocess.Popen[bytes]") -> None:
    """Wait for the pager. ^C is ignored, since the pager handles it."""
    while True:
        try:
            pager.wait()
            return
        except KeyboardInterrupt:
            continue
