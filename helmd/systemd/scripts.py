"""Scripts: which interpreter runs one, and why the kernel can't execute it (execve(2), "Interpreter scripts")."""

import os
import re
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from helmd.model.suite.shell_syntax import SHELL_PROGRAMS

_HEAD = 1024
_WHOLE = 1 << 16
"""Bytes of a script of a shell that are read."""
_REPLACED = re.compile(r"^[^#]*\bexec\b", re.M)
"""The command by which a shell becomes the program that it runs."""
_SEVERAL = re.compile(r"[;&|\n]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WRAPPED = re.compile(rb"\A#!/bin/sh\n'''exec' \"?(/[^\"\n]+?)\"? \"\$0\"")
"""How pip writes the first lines of a script whose interpreter has a long path or one with a blank."""


def head_of(path: Path, size: int = _HEAD) -> bytes:
    """Return the first SIZE bytes of a regular file; empty if it can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, size) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


def interpreter_of(path: Path) -> list[str]:
    """Return the words of the first line of a script, without "#!"; empty for another file."""
    head = head_of(path)
    if wrapped := _WRAPPED.match(head):
        return [wrapped.group(1).decode("utf-8", "surrogateescape")]
    line = head.partition(b"\n")[0]
    if not line.startswith(b"#!"):
        return []
    words = line[2:].decode("utf-8", "surrogateescape").split()
    return words if words and words[0].startswith("/") else []


def script_fault(path: Path, *, searched: bool) -> str:
    """Return why PATH, which is executable, can't be executed, as a sentence with what to do; empty if it can.

    SEARCHED: by execvp(3), which has /bin/sh run what does not say by what it is to be run.
    """
    head = head_of(path)
    first = head.partition(b"\n")[0]
    if not head:
        # A program may be executable without being readable.
        return "" if os.stat(path).st_size else f"program {path} is empty"
    if head.startswith(_BYTE_ORDER_MARK + b"#!"):
        fix = f"sed -i '1s/^\\xef\\xbb\\xbf//' {shlex.quote(str(path))}"
        return f"script {path} begins with a byte order mark; remove it with: {fix}"
    if first.startswith(b"#!") and first.endswith(b"\r"):
        fix = f"sed -i 's/\\r$//' {shlex.quote(str(path))}"
        return f"script {path} has the line ends of Windows; change them with: {fix}"
    if not first.startswith(b"#!") and not searched:
        plain = all(byte in b"\t\n\r" or (byte >= 32 and byte != 127) for byte in head)
        return f"script {path} needs a first line that names its interpreter, such as #!/bin/sh" if plain else ""
    words = interpreter_of(path)
    if words and not os.path.exists(words[0]):
        return f"script {path} names the interpreter {words[0]}, which does not exist"
    return ""


def stays_in_shell(words: Sequence[str], directory: Path) -> bool:
    """Return whether the command line WORDS in DIRECTORY leaves a shell running, with the program as its child."""
    if _name(words[0]) in SHELL_PROGRAMS:
        options = [word for word in words[1:] if word.startswith("-")]
        rest = [word for word in words[1:] if not word.startswith("-")]
        if any("c" in option.lstrip("-") for option in options if not option.startswith("--")):
            # A shell replaces itself by a command that is the only one.
            return bool(rest) and bool(_SEVERAL.search(rest[0])) and not _REPLACED.search(rest[0])
        script = directory / rest[0] if rest else None
    else:
        script = Path(words[0]) if words[0].startswith("/") else None
        interpreter = interpreter_of(script) if script else []
        if not any(_name(word) in SHELL_PROGRAMS for word in interpreter[:2]):
            return False
    return script is not None and not _REPLACED.search(head_of(script, _WHOLE).decode("utf-8", "replace"))


def _name(word: str) -> str:
    return word.rpartition("/")[2]
