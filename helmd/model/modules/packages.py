"""What dpkg and needrestart print about packages and processes, as facts."""

import re
from collections.abc import Iterable, Mapping

QUERY_FORMAT = "${Package}\\t${Version}\\t${db:Status-Status}\\t${Provides}\\n"
"""For ``dpkg-query --show --showformat``; what `installed_packages` reads."""
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_PID_LINE = re.compile(r"^NEEDRESTART-PID: .*=([0-9,]+)$", re.MULTILINE)


def alternatives_in(field: str) -> tuple[tuple[str, ...], ...]:
    """Return the packages of a field such as Depends (Debian Policy 7.1): each with its alternatives, versions left
    out.
    """
    found = []
    for group in field.split(","):
        names = tuple(match[0] for each in group.split("|") if (match := _NAME.match(each.strip())))
        if names:
            found.append(names)
    return tuple(found)


def installed_packages(shown: str) -> Mapping[str, tuple[str, str]]:
    """Return installed packages: name, and each name that one provides → its own name and version."""
    own, provided = dict[str, tuple[str, str]](), dict[str, tuple[str, str]]()
    for line in shown.splitlines():
        name, _, rest = line.partition("\t")
        version, _, rest = rest.partition("\t")
        status, _, provides = rest.partition("\t")
        if status != "installed":
            continue
        own[name] = (name, version)
        for names in alternatives_in(provides):
            provided.setdefault(names[0], (name, version))
    return provided | own


def chosen(alternatives: Iterable[str], present: Mapping[str, tuple[str, str]]) -> tuple[str, str | None]:
    """Of some packages of which one is needed, the one that is installed and its version; else the first, and None."""
    names = tuple(alternatives)
    for name in names:
        if name in present:
            return present[name]
    return names[0], None


def outdated_processes(text: str) -> tuple[int, ...] | None:
    """Return the processes that ``needrestart -b`` names when an ordinary account runs it, or None if it did not
    finish.
    """
    if "NEEDRESTART-VER:" not in text:
        return None
    return tuple(int(pid) for pids in _PID_LINE.findall(text) for pid in pids.split(",") if pid)
