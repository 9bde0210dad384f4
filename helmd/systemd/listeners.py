"""Who listens on a TCP port: read from ``/proc/net/tcp`` and the open files of processes (proc(5))."""

import os
import re
from typing import NamedTuple

from helmd.model.printable import printable

USER_MANAGER = "init.scope"
"""The unit in which a manager itself runs (systemd.special(7))."""

_LISTEN = "0A"


class Holder(NamedTuple):
    """A process that listens; pid 0 and an empty unit when it belongs to somebody whose files can't be read."""

    pid: int
    command: str
    unit: str
    uid: int

    def __str__(self) -> str:
        if not self.pid:
            return f"a process of uid {self.uid}"
        unit = f" ({self.unit})" if self.unit else ""
        return f"pid {self.pid}, {self.command}{unit}"


def _sockets(port: int) -> dict[str, int]:
    """Inodes of sockets that listen on PORT, with their owners' uids."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                lines = file.readlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found[fields[9]] = int(fields[7])
    return found


def _unit_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            path = file.read().strip().rpartition(":")[2]
    except OSError:
        return ""
    return next((part for part in reversed(path.split("/")) if re.search(r"\.(service|scope)$", part)), "")


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:
        return "?"
    text = b" ".join(word for word in words if word)[:80].decode("utf-8", "replace")
    return printable(text) or "?"


def holder_of(port: int) -> Holder | None:
    """The process that listens on PORT of any local address, or None.

    A socket that systemd made is held by the user manager too (`USER_MANAGER`); what it was made for comes first.
    """
    sockets = _sockets(port)
    if not sockets:
        return None
    wanted = {f"socket:[{inode}]" for inode in sockets}
    manager: Holder | None = None
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            for descriptor in os.listdir(f"/proc/{entry}/fd"):
                if os.readlink(f"/proc/{entry}/fd/{descriptor}") in wanted:
                    pid = int(entry)
                    holder = Holder(pid, _command(pid), _unit_of(pid), os.stat(f"/proc/{entry}").st_uid)
                    if holder.unit != USER_MANAGER:
                        return holder
                    manager = holder
        except OSError:
            continue
    return manager or Holder(0, "", "", next(iter(sockets.values())))
