"""Secrets of a service in its environment file: read as systemd reads it, made when missing, other lines untouched.

The syntax is that of EnvironmentFile= in systemd.exec(5), as src/basic/env-file.c of systemd 252 has it.
"""

import fcntl
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.model.errors import ConfigurationError, DeniedError, Fault

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_WHITESPACE = " \t\n\r"
_NEED_ESCAPE = '"\\`$'


def ensure_secrets(path: Path, wanted: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    """The values of WANTED in the file at PATH, each made by its function and appended when it isn't there or empty.

    The file has mode 0600 afterwards. Raises DeniedError for a symbolic link or somebody else's file and
    ConfigurationError for one that nothing can be appended to.
    """

    def missing(present: Mapping[str, str]) -> dict[str, str]:
        return {key: make() for key, make in wanted.items() if not present.get(key)}

    present = _append(path, missing)
    return {key: present[key] for key in wanted}


def put_secret(path: Path, key: str, value: str) -> None:
    """Makes KEY say VALUE in the file at PATH; of several lines the last holds. Errors as `ensure_secrets`."""
    _append(path, lambda present: {} if present.get(key) == value else {key: value})


def _append(path: Path, choose: Callable[[Mapping[str, str]], dict[str, str]]) -> dict[str, str]:
    """Appends what CHOOSE makes of what is there, under a lock; all that is there then."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        text = _read(path)
        present = parse_environment_file(text, str(path))
        made = choose(present)
        if made:
            lines = "".join(f"{environment_line(key, value)}\n" for key, value in made.items())
            separator = "\n" if text and not text.endswith("\n") else ""
            write_atomically(path, f"{text}{separator}{lines}", 0o600)
        elif path.exists() and stat.S_IMODE(path.lstat().st_mode) != 0o600:
            path.chmod(0o600)
    finally:
        os.close(directory)
    return {**present, **made}


def read_environment_file(path: Path) -> dict[str, str]:
    """What systemd would set from PATH; nothing when there is no such file. Errors as `ensure_secrets`."""
    return parse_environment_file(_read(path), str(path))


def environment_line(key: str, value: str) -> str:
    """The line that sets KEY to VALUE, whatever VALUE holds. Raises ValueError for what no line can hold."""
    if not _KEY.match(key) or "\0" in value:
        raise ValueError(f"{key!r} can't be set in an environment file")
    escaped = "".join(f"\\{sign}" if sign in _NEED_ESCAPE else sign for sign in value)
    return f'{key}="{escaped}"'


def parse_environment_file(text: str, name: str) -> dict[str, str]:
    """The assignments in TEXT, later ones overriding. NAME is what an error calls the file."""
    found: dict[str, str] = {}
    state, key, value, kept = "before key", "", "", 0
    for sign in text:
        match state:
            case "before key":
                key, value, kept = "", "", 0
                if sign in "#;":
                    state = "comment"
                elif sign not in _WHITESPACE:
                    state, key = "key", sign
            case "key":
                if sign == "\n":
                    state = "before key"
                elif sign == "=":
                    state = "before value"
                else:
                    key += sign
            case "before value" | "value" if sign == "\n":
                found[key.rstrip(_WHITESPACE)] = value[:kept]
                state = "before key"
            case "before value" if sign in "'\"":
                state = "single" if sign == "'" else "double"
            case "before value" | "value" if sign == "\\":
                state = "escape"
            case "before value" | "value":
                # Whitespace ends a value's line, or stands within it; only what follows tells.
                if state == "value" or sign not in _WHITESPACE:
                    state, value = "value", value + sign
                    kept = len(value) if sign not in _WHITESPACE else kept
            case "escape":
                state = "value"
                if sign != "\n":
                    value += sign
                    kept = len(value)
            case "single" | "double" if sign == ("'" if state == "single" else '"'):
                state = "before value"
            case "double" if sign == "\\":
                state = "double escape"
            case "single" | "double":
                value += sign
                kept = len(value)
            case "double escape":
                state = "double"
                value += sign if sign in _NEED_ESCAPE else "" if sign == "\n" else f"\\{sign}"
                kept = len(value)
            case "comment" if sign == "\n":
                state = "before key"
    if state in ("single", "double", "double escape", "escape"):
        line = text.count("\n") + 1
        raise ConfigurationError([Fault(name, line, key, "the value's quote or its last line is not ended")])
    if state in ("value", "before value"):
        found[key.rstrip(_WHITESPACE)] = value[:kept]
    return found


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    except OSError as fault:
        raise DeniedError(
            f"{path} is not a plain file: {fault.strerror}", hint="Remove it, then run this again."
        ) from fault
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        os.close(descriptor)
        raise DeniedError(f"{path} is not a plain file of this account", hint="Remove it, then run this again.")
    # As it is, byte for byte: what isn't ours goes back the way it came.
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()
