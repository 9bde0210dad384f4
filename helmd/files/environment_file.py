"""Environment files with a service's secrets: parsing them, appending missing variables, removing some.

The syntax is that of EnvironmentFile= in systemd.exec(5), as implemented by src/basic/env-file.c of systemd 252.
"""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from helmd.files.durable import write_in
from helmd.files.lock import locked_directory
from helmd.model.errors import ConfigurationError, DeniedError, Fault

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_COMMENTED = re.compile(r"[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*[^'\"\s#][^'\"]*?[ \t]+#(?:[ \t]|\Z)")
_WHITESPACE = " \t\n\r"
_NEED_ESCAPE = '"\\`$'


def new_secret(size: int = 32) -> str:
    """Random text that holds SIZE bytes."""
    # Imported here, since most commands generate none.
    from secrets import token_urlsafe

    return token_urlsafe(size)


def ensure_secrets(path: Path, wanted: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    """Return the values of the variables WANTED in the file at PATH, after appending those missing or empty.

    WANTED maps each variable to the function that generates its value. The file gets mode 0600. Raises DeniedError
    if PATH is a symbolic link or owned by another account, and ConfigurationError if it ends within a value.
    """

    def missing(present: Mapping[str, str]) -> dict[str, str]:
        return {key: generate() for key, generate in wanted.items() if not present.get(key)}

    present = _append(path, missing)
    return {key: present[key] for key in wanted}


def put_secret(path: Path, key: str, value: str) -> None:
    """Set KEY to VALUE in the file at PATH by appending a line. Raises as `ensure_secrets`."""
    _append(path, lambda present: {} if present.get(key) == value else {key: value})


def remove_variables(path: Path, names: Collection[str]) -> bool:
    """Remove the lines that set NAMES from the file at PATH; all others stay as they are. True if there were any.

    Raises ConfigurationError if one of their values spans several lines, and as `ensure_secrets`.
    """
    with _locked(path) as directory:
        text = _read(path, directory)
        present = parse_environment_file(text, str(path))
        removed = {key: value for key, value in present.items() if key in names}
        if not removed:
            return False
        lines = text.split("\n")
        out = [line for line in lines if line.partition("=")[0].strip(_WHITESPACE) in names]
        try:
            whole = parse_environment_file("\n".join([*out, ""]), str(path)) == removed
        except ConfigurationError:
            whole = False
        if not whole:
            raise ConfigurationError([Fault(str(path), 0, "", f"remove {', '.join(removed)} from it by hand")])
        content = "\n".join(line for line in lines if line not in out)
        write_in(directory, path.name, content.encode("utf-8", "surrogateescape"), 0o600)
    return True


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Yield a descriptor of the directory that the file at PATH is in, locked against other writers."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked_directory(path.parent) as directory:
        yield directory


def _append(path: Path, choose: Callable[[Mapping[str, str]], dict[str, str]]) -> dict[str, str]:
    """Append the variables that CHOOSE returns for those present, under a lock. Returns all variables."""
    with _locked(path) as directory:
        text = _read(path, directory)
        present = parse_environment_file(text, str(path))
        added = choose(present)
        if added:
            lines = "".join(f"{environment_line(key, value)}\n" for key, value in added.items())
            separator = "\n" if text and not text.endswith("\n") else ""
            content = f"{text}{separator}{lines}".encode("utf-8", "surrogateescape")
            write_in(directory, path.name, content, 0o600)
    return {**present, **added}


def read_environment_file(path: Path) -> dict[str, str]:
    """Return the variables that systemd would set from PATH; empty if the file is missing. Errors: `ensure_secrets`."""
    return parse_environment_file(_read(path), str(path))


def environment_line(key: str, value: str) -> str:
    """Return the line that sets KEY to VALUE, quoted. Raises ValueError for an invalid KEY or a NUL in VALUE."""
    if not _KEY.match(key) or "\0" in value:
        raise ValueError(f"{key!r} can't be set in an environment file")
    escaped = "".join(f"\\{character}" if character in _NEED_ESCAPE else character for character in value)
    return f'{key}="{escaped}"'


def misread_lines(text: str, name: str) -> Iterator[str]:
    """Yield what in TEXT shells and docker compose read otherwise than systemd, as sentences without full stop and
    values.

    NAME is the file's. Raises ConfigurationError as `parse_environment_file`.
    """
    ignored = {key for key in parse_environment_file(text, name) if not _KEY.match(key)}
    for number, line in enumerate(text.split("\n"), 1):
        key, equals, _ = line.partition("=")
        if line.startswith("\ufeff"):
            yield f"{name}:{number}: the file begins with a byte order mark, by which systemd ignores its first line"
        elif equals and key.strip(_WHITESPACE) in ignored:
            export = ", without export" if key.split()[:1] == ["export"] else ""
            yield f"{name}:{number}: systemd ignores the line; write NAME=value{export}"
        elif found := _COMMENTED.match(line):
            yield f"{name}:{number}: the value of {found[1]} has the comment in it; give that a line of its own"


def parse_environment_file(text: str, name: str) -> dict[str, str]:
    """Return the assignments in TEXT, later ones overriding earlier ones. NAME is the file name for errors.

    Raises ConfigurationError if TEXT ends within a quoted or continued value.
    """
    found: dict[str, str] = {}
    state, key, value, length = "before key", "", "", 0
    for char in text:
        match state:
            case "before key":
                key, value, length = "", "", 0
                if char in "#;":
                    state = "comment"
                elif char not in _WHITESPACE:
                    state, key = "key", char
            case "key":
                if char == "\n":
                    state = "before key"
                elif char == "=":
                    state = "before value"
                else:
                    key += char
            case "before value" | "value" if char == "\n":
                found[key.rstrip(_WHITESPACE)] = value[:length]
                state = "before key"
            case "before value" if char in "'\"":
                state = "single" if char == "'" else "double"
            case "before value" | "value" if char == "\\":
                state = "escape"
            case "before value" | "value":
                # Trailing whitespace is not part of the value, so LENGTH counts only up to the last other character.
                if state == "value" or char not in _WHITESPACE:
                    state, value = "value", value + char
                    length = len(value) if char not in _WHITESPACE else length
            case "escape":
                state = "value"
                if char != "\n":
                    value += char
                    length = len(value)
            case "single" | "double" if char == ("'" if state == "single" else '"'):
                state = "before value"
            case "double" if char == "\\":
                state = "double escape"
            case "single" | "double":
                value += char
                length = len(value)
            case "double escape":
                state = "double"
                value += char if char in _NEED_ESCAPE else "" if char == "\n" else f"\\{char}"
                length = len(value)
            case "comment" if char == "\n":
                state = "before key"
    if state in ("single", "double", "double escape", "escape"):
        line = text.count("\n") + 1
        raise ConfigurationError([Fault(name, line, key, "unterminated quote or line continuation")])
    if state in ("value", "before value"):
        found[key.rstrip(_WHITESPACE)] = value[:length]
    return found


def _read(path: Path, directory: int | None = None) -> str:
    """Return the text of PATH. Given the open DIRECTORY that it is in, open it there and set its mode to 0600."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path if directory is None else path.name, flags, dir_fd=directory)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DeniedError(
            f"{path} is not a regular file: {error.strerror}", hint="Remove it, then run this command again."
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(descriptor)
        raise DeniedError(
            f"{path} is not a regular file owned by this account", hint="Remove it, then run this command again."
        )
    # surrogateescape and no newline translation, so that existing lines are written back byte for byte.
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape", newline="") as file:
        if directory is not None and stat.S_IMODE(status.st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        return file.read()
