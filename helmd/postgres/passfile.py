"""The passwords of a cluster's roles in a password file (libpq, "The Password File"), found by ``PGPASSFILE``."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from helmd.files.durable import write_in
from helmd.files.environment_file import new_secret
from helmd.model.errors import DeniedError
from helmd.postgres.configuration import SUPERUSER

_USER_FIELD, _PASSWORD_FIELD = 3, 4


def ensure_superuser_password(path: Path, make: Callable[[], str] = new_secret) -> str:
    """Return the superuser's password in the file at PATH, which is created, with a password from MAKE, if missing.

    Its mode is 0600. Raises DeniedError if the file can't be used: libpq would ignore it silently.
    """
    if not os.path.lexists(path):
        put_passwords(path, {SUPERUSER: make()})
    password = passwords_in(path).get(SUPERUSER)
    if not password:
        raise DeniedError(f"{path} has no password of the role '{SUPERUSER}'", hint=_hint(path))
    return password


def put_passwords(path: Path, passwords: Mapping[str, str], databases: Mapping[str, str] | None = None) -> None:
    """Write PASSWORDS by role to the file at PATH, which is created if missing; other lines are kept.

    A role's password is for its database, in DATABASES or else of its name, the superuser's for all. Errors as
    `ensure_superuser_password`.
    """
    known = {SUPERUSER: "*", **{role: _escaped(database) for role, database in (databases or {}).items()}}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = _read(path) if os.path.lexists(path) else ""
    kept = [line for line in text.splitlines() if _role_and_password(line)[0] not in passwords]
    lines = [
        ":".join(("*", "*", known.get(role, _escaped(role)), _escaped(role), _escaped(password)))
        for role, password in passwords.items()
    ]
    if (wanted := "".join(f"{line}\n" for line in (*kept, *lines))) != text:
        _write(path, wanted)


def remove_password(path: Path, role: str) -> None:
    """Remove the password of ROLE from the file at PATH. Errors as `ensure_superuser_password`."""
    text = _read(path)
    kept = [line for line in text.splitlines() if _role_and_password(line)[0] != role]
    if (wanted := "".join(f"{line}\n" for line in kept)) != text:
        _write(path, wanted)


def _write(path: Path, wanted: str) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_in(directory, path.name, wanted.encode("utf-8", "surrogateescape"), 0o600)
    finally:
        os.close(directory)


def passwords_in(path: Path) -> dict[str, str]:
    """Return the passwords in the file at PATH by role. Errors as `ensure_superuser_password`."""
    found = (_role_and_password(line) for line in _read(path).splitlines())
    return {role: password for role, password in found if password}


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DeniedError(f"{path} can't be read: {error.strerror}", hint=_hint(path)) from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        os.close(descriptor)
        raise DeniedError(f"{path} is not a file of this account that nobody else can read", hint=_hint(path))
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _hint(path: Path) -> str:
    return f"Remove {path}, then: helmctl stop postgres; helmctl setup; helmctl up"


def _role_and_password(line: str) -> tuple[str, str]:
    """Parse a line of a password file; both are empty for a comment or an invalid line."""
    fields = [] if line.startswith("#") else list(_fields(line))
    return (fields[_USER_FIELD], fields[_PASSWORD_FIELD]) if len(fields) > _PASSWORD_FIELD else ("", "")


def _escaped(field: str) -> str:
    return field.replace("\\", "\\\\").replace(":", "\\:")


def _fields(line: str) -> Iterator[str]:
    """Yield the fields of a line, in which a backslash escapes ``:`` and ``\\``."""
    field, escaped = "", False
    for sign in line:
        if escaped:
            field, escaped = field + sign, False
        elif sign == "\\":
            escaped = True
        elif sign == ":":
            yield field
            field = ""
        else:
            field += sign
    yield field
