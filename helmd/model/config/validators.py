"""Readers of single configuration values: TOML value in, value of the model out. Raises ValueError with a sentence.

Each reader takes the value as `tomllib` returns it, and checks its type, length and characters.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from helmd.model.config.secrets import holds_password
from helmd.model.suite.names import CLIENT_SECRET, STOP_SIGNALS, fault_in_name
from helmd.model.urls import normal_url

Reader = Callable[[object], Any]

MAX_TEXT = 4096
MAX_ENVIRONMENT_VALUE = 32768

_CHECK_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,40}\Z")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|min|m|h|d)?\Z", re.ASCII)
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d{1,15})\s*([KMGT]?)i?B?\Z", re.ASCII)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECRET = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIAL)")
_SECRET_REFERENCE = re.compile(r"_(FILE|PATH|DIR|URL|TTL|TIMEOUT|EXPIRY|LIFETIME)\Z")
_PATH_REFUSED = re.compile(r"""[:"'\\$%`*?<>|]""")
"""Characters with a special meaning in systemd's lists of paths; each kind of list would need its own escaping."""
_PROGRAM_PREFIXES = "-@+!"
"""Prefixes of a program in systemd.service(5), which apply even if quoted; ``:`` is in _PATH_REFUSED."""


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except ValueError:  # Python's limit on the digits of an integer
        return "a number of too many digits"
    return text if len(text) <= 60 else text[:57] + "..."


def text(value: object) -> str:
    """Return one line of text."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {_shown(value)}")
    if len(value) > MAX_TEXT:
        raise ValueError(f"is {len(value):,} characters long; at most {MAX_TEXT:,} are allowed")
    if not value.isprintable():
        raise ValueError(f"must be one line of printable characters, not {_shown(value)}")
    return value


def stop_signal(value: object) -> str:
    """Return the name of a signal, such as SIGQUIT; without "SIG" as well, as in docker compose."""
    name = value.upper() if isinstance(value, str) else ""
    read = name if name.startswith("SIG") else f"SIG{name}"
    if read not in STOP_SIGNALS:
        raise ValueError(f"must be one of {', '.join(STOP_SIGNALS)}, not {_shown(value)}")
    return read


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_shown(value)}")
    return value


def integer(low: int, high: int) -> Reader:
    """Return an integer from LOW to HIGH."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be an integer, not {_shown(value)}")
        if not low <= value <= high:
            raise ValueError(f"must be from {low:,} to {high:,}, not {_shown(value)}")
        return value

    return read


RETENTIONS = (7, 30, 90, 365)
"""Days for which log entries can be kept: each is a class of partitions of its own (migration 0002)."""


def retention(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in RETENTIONS:
        raise ValueError(f"must be one of {', '.join(map(str, RETENTIONS))} days, not {_shown(value)}")
    return value


def choice(*allowed: str) -> Reader:
    def read(value: object) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, not {_shown(value)}")
        return str(value)

    return read


def matching(pattern: str, wanted: str) -> Reader:
    """Return a text that PATTERN matches whole; WANTED says what it must be."""

    def read(value: object) -> str:
        found = text(value)
        if not re.fullmatch(pattern, found):
            raise ValueError(f"must be {wanted}, not {_shown(value)}")
        return found

    return read


def duration(value: object) -> float:
    """Return seconds, from a number or from text such as "500ms", "2s", "5min"."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e10:
        value = str(value)
    found = _DURATION.match(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f'must be a duration such as "500ms", "2s" or "5min", not {_shown(value)}')
    seconds = float(found.group(1)) * _DURATION_UNITS[found.group(2) or ""]
    if not 0.01 <= seconds <= 366 * 86400:
        raise ValueError(f"must be from 10 ms to a year, not {_shown(value)}")
    return seconds


def size(value: object) -> int:
    """Return bytes, from a number or from text such as "512M"."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60:
        value = str(value)
    found = _SIZE.match(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f'must be a size such as "512M" or "2G", not {_shown(value)}')
    count = int(found.group(1)) * _SIZE_UNITS[found.group(2)]
    if not 1 << 20 <= count <= 1 << 50:
        raise ValueError(f"must be at least 1M and at most 1024T, not {_shown(value)}")
    return count


def percent(value: object) -> int:
    """Percent of one CPU, from an integer or from text such as "150%"."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}%", value):
        value = int(value[:-1])
    return int(integer(1, 100_000)(value))


def words(value: object) -> tuple[str, ...]:
    """Return a command line: a list of words, or text split as a shell would (no shell ever runs it)."""
    if isinstance(value, str):
        try:
            parts = shlex.split(text(value))
        except ValueError as problem:
            raise ValueError(f"can't be split into words ({problem})") from None
    elif isinstance(value, list):
        parts = [text(item) for item in value]
    else:
        raise ValueError(f"must be a list of words, not {_shown(value)}")
    if len(parts) > 256:
        raise ValueError(f"has {len(parts):,} words; at most 256 are allowed")
    if not parts or not parts[0]:
        raise ValueError("must name a program")
    program = parts[0]
    if ".." in program.split("/"):
        raise ValueError("the program's path must not contain '..'")
    if found := _PATH_REFUSED.search(program):
        raise ValueError(f"the program must not contain {found.group()!r}, as {_shown(program)} does")
    if program[0] in _PROGRAM_PREFIXES:
        raise ValueError(f"the program must not begin with {program[0]!r}, as {_shown(program)} does")
    return tuple(parts)


def _items(value: object, what: str, most: int = 100) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"must be a list of {what}, not {_shown(value)}")
    return value


def names(value: object) -> tuple[str, ...]:
    """Return a list of service names."""
    for item in (given := _items(value, "service names")):
        if not isinstance(item, str) or fault_in_name(item):
            raise ValueError(f"{_shown(item)} is not a service name")
    return tuple(dict.fromkeys(given))


def check_names(value: object) -> tuple[str, ...]:
    """Return a list of names of checks in a health document."""
    for item in (given := _items(value, "names", 20)):
        if not isinstance(item, str) or not _CHECK_NAME.match(item):
            raise ValueError(f"{_shown(item)} is not the name of a check: up to 40 of letters, digits and ._:-")
    return tuple(dict.fromkeys(given))


def numbers(low: int, high: int) -> Reader:
    """Return a list of integers from LOW to HIGH."""
    one = integer(low, high)

    def read(value: object) -> tuple[int, ...]:
        return tuple(one(item) for item in _items(value, "integers"))

    return read


def path(value: object) -> str:
    """Return a file system path: absolute, below ``~/``, or relative; without ``..``."""
    read = text(value)
    if not read:
        raise ValueError("must not be empty")
    if ".." in read.split("/"):
        raise ValueError(f"must not contain '..', as {_shown(read)} does")
    if found := _PATH_REFUSED.search(read):
        raise ValueError(f"must not contain {found.group()!r}, as {_shown(read)} does")
    return read


def paths(value: object) -> tuple[str, ...]:
    return tuple(path(item) for item in _items(value, "paths"))


def relative_paths(value: object) -> tuple[str, ...]:
    """Return paths below a service's directory."""
    read = paths(value)
    for item in read:
        if item.startswith(("/", "~")) or any(part in ("", ".") for part in item.split("/")):
            raise ValueError(f"must be relative to path, and plain, not {_shown(item)}")
    return read


def recipients(value: object) -> tuple[str, ...]:
    """Public keys of age(1)."""
    for item in (given := _items(value, "public keys", 20)):
        if not isinstance(item, str) or not _RECIPIENT.match(item):
            raise ValueError(f"must be public keys such as age1..., which age-keygen prints, not {_shown(item)}")
    return tuple(given)


_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}\Z")


def service_units(value: object) -> tuple[str, ...]:
    """Return names of service units, in which a pattern may stand (glob(7))."""
    for item in (given := _items(value, "units")):
        if not isinstance(item, str) or not _UNITS.match(item) or item.startswith("*"):
            raise ValueError(f'must be names of services such as "backup.service", not {_shown(item)}')
    return tuple(given)


_UNITS = re.compile(r"[A-Za-z0-9:_.\\@*?\[\]-]{1,247}\.service\Z")


def networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    """IP addresses and networks."""
    return tuple(_network(item) for item in _items(value, "addresses"))


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        read = ip_network(text(value))
    except ValueError:
        raise ValueError(f"must be IP addresses or networks such as 192.0.2.0/24, not {_shown(value)}") from None
    if not read.prefixlen:
        raise ValueError(f"may not be all addresses ({read})")
    return read


def schedule(value: object) -> str:
    """Return a calendar event expression as far as it can stand in a unit; what it means is systemd's to say."""
    read = text(value)
    if not read or len(read) > 200 or not read.isascii() or read != read.strip() or re.search(r"[%\\]", read):
        raise ValueError(f'must be a calendar event such as "daily" or "Mon..Fri 03:00", not {_shown(value)}')
    return read


def url_path(value: object) -> str:
    """Return the path of a request, with its query."""
    read = text(value)
    if not read.startswith("/") or not read.isascii() or re.search(r"[\s\"<>\\^`{|}#]", read):
        raise ValueError(f"must be the path of a URL, starting with '/', not {_shown(value)}")
    return read


def url(value: object) -> str:
    """Return an http or https URL without user name and password, in its normal form."""
    read = text(value)
    try:
        parts = urlsplit(read)
        port = parts.port
    except ValueError as problem:
        raise ValueError(f"is not a valid URL ({problem})") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not read.isascii() or " " in read:
        raise ValueError(f"must be an http or https URL, not {_shown(value)}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user name or password")
    if port == 0:
        raise ValueError("must not have port 0")
    return normal_url(read)


def git_source(value: object) -> str:
    """Return where git fetches from: an https or ssh URL, or an absolute path.

    Nothing in it can be taken for an option, or names a program (gitremote-helpers(7)).
    """
    read = text(value)
    if holds_password(read):
        raise ValueError("must not contain a password; use a deploy key")
    if re.match(r"https?://[^/]*@", read):
        raise ValueError("must not contain a user name or token; for a private repository use ssh and a deploy key")
    if not any(pattern.fullmatch(read) for pattern in _GIT_SOURCES):
        raise ValueError(f"must be an https or ssh URL or an absolute path, not {_shown(value)}")
    if ".." in read.split("/"):
        raise ValueError(f"must not contain '..', as {_shown(read)} does")
    return read


_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]"
_GIT_PATH = r"[A-Za-z0-9._~+@%=][A-Za-z0-9._~+@%=-]*(?:/[A-Za-z0-9._~+@%=][A-Za-z0-9._~+@%=-]*)*/?"
_GIT_SOURCES = (
    re.compile(rf"https://(?:{_HOST})(?::[0-9]{{1,5}})?/{_GIT_PATH}"),
    re.compile(rf"ssh://(?:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,63}}@)?(?:{_HOST})(?::[0-9]{{1,5}})?/{_GIT_PATH}"),
    re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,63}}@(?:{_HOST}):/?{_GIT_PATH}"),
    re.compile(r"/[^\x00-\x20\x7f:\\\"'$`]+"),
)


def git_ref(value: object) -> str:
    """Return a branch, tag or commit (git-check-ref-format(1), without what could be taken for an option or a
    range).
    """
    read = text(value)
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,200}", read)
    if not plain or ".." in read or "//" in read or read.endswith(("/", ".", ".lock")) or "/." in read:
        raise ValueError(f"must be a branch, tag or commit, not {_shown(value)}")
    return read


def relative_path(value: object) -> str:
    """Return one path below a service's directory."""
    return relative_paths([value])[0]


def interpreter(value: object) -> str:
    """Return a program of Python: its name, or an absolute path."""
    read = path(value)
    if not re.fullmatch(r"(/.*/)?(python|pypy)[0-9.]*", read):
        raise ValueError(f"must be an interpreter of Python such as python3.12, not {_shown(value)}")
    return read


python_version = matching(r"3\.[0-9]{1,2}", "a version of Python such as 3.12")
"""A version of Python 3, without its last number."""


def constraints(value: object) -> tuple[str, ...]:
    """Return lines of a constraints file of pip, of names and versions only (PEP 508 without URLs)."""
    for item in (given := _items(value, "versions", 200)):
        if not isinstance(item, str) or not _CONSTRAINT.fullmatch(item):
            raise ValueError(f'must be names and versions such as "sqlalchemy<2.1", not {_shown(item)}')
    return tuple(given)


_VERSION = r"\s*(?:===?|[<>!~]=|[<>])\s*[A-Za-z0-9][A-Za-z0-9.*+!_-]{0,60}\s*"
_CONSTRAINT = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}{_VERSION}(?:,{_VERSION})*")


realm = matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "the name of a realm (letters, digits, '.', '_', '-')")
"""The name of a Keycloak realm, as it can stand in a path."""


variable = matching(r"[A-Za-z_][A-Za-z0-9_]{0,99}", "the name of an environment variable")


def database_name(value: object) -> str:
    """Return the name of a database, as it needs no quotes anywhere (PostgreSQL, "Identifiers and Key Words")."""
    read = text(value)
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", read) or read in _OWN_DATABASES:
        raise ValueError(f"must be a lower-case name of up to 63 of a-z, 0-9 and '_', not {_shown(value)}")
    return read


_OWN_DATABASES = ("postgres", "template0", "template1", "keycloak", "helm")


section = matching(r"[A-Za-z0-9_][A-Za-z0-9_ .:-]{0,99}", "the name of a section, without brackets")
"""The section of a configuration file."""


key = matching(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}", "the name of a setting")
"""The key of a configuration file."""


database_scheme = matching(r"postgres(ql)?(\+[a-z][a-z0-9_]{0,29})?", "postgresql or postgresql+DRIVER")
"""The scheme of a PostgreSQL URI, with a driver or without."""


def variables(value: object) -> tuple[str, ...]:
    """Return a list of names of environment variables."""
    return tuple(dict.fromkeys(variable(item) for item in _items(value, "variables")))


def names_secret(variable: str) -> bool:
    """Return whether a VARIABLE of this name holds a secret, rather than says where one is."""
    name = variable.upper()
    return bool(_SECRET.search(name)) and not _SECRET_REFERENCE.search(name)


def environment(value: object) -> Mapping[str, str]:
    """Environment variables. Secrets are refused, since other accounts can read unit files."""
    if not isinstance(value, dict) or len(value) > 500:
        raise ValueError(f"must be a table of variables, not {_shown(value)}")
    read = {}
    for key, item in value.items():
        name = variable(key)
        if isinstance(item, bool):
            item = "1" if item else "0"
        elif isinstance(item, int | float) and abs(item) < 1e30:
            item = str(item)
        if not isinstance(item, str):
            raise ValueError(f"{name} must be text or a number, not {_shown(item)}")
        if len(item) > MAX_ENVIRONMENT_VALUE:
            raise ValueError(f"{name} is {len(item):,} characters long; at most {MAX_ENVIRONMENT_VALUE:,} are allowed")
        if any(not c.isprintable() and c != "\t" for c in item):
            raise ValueError(f"{name} must be one line of printable characters, not {_shown(item)}")
        if (names_secret(name) and item) or holds_password(item):
            raise ValueError(
                f"{name} looks like a secret; put it in secrets/SERVICE.env (mode 0600) beside this file instead"
            )
        read[name] = item
    return read


def flaskenv(value: object) -> Mapping[str, str]:
    """Environment variables, of which some may stand for the secret of Keycloak's client."""
    if not isinstance(value, dict):
        return environment(value)
    secret = {variable(key): CLIENT_SECRET for key, item in value.items() if item == CLIENT_SECRET}
    return {**environment({key: item for key, item in value.items() if item != CLIENT_SECRET}), **secret}


def dsn(value: object) -> str:
    """``embedded``, or a PostgreSQL connection URI (libpq, "Connection URIs")."""
    read = text(value)
    if read != "embedded" and not re.match(r"postgres(ql)?://", read):
        raise ValueError('must be "embedded" or a postgresql:// URI')
    if read != "embedded" and "," in read.partition("://")[2].partition("/")[0].rpartition("@")[2]:
        raise ValueError("must name one server, not several")
    return read
