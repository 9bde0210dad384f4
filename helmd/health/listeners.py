"""Who listens on a TCP port: read from ``/proc/net/tcp`` and the open files of processes (proc(5))."""

import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from helmd.health.address import EVERY, local_addresses
from helmd.health.control_group import ROOTS
from helmd.health.port_binding import is_bound
from helmd.health.sock_diag import LISTEN, address_text, sockets
from helmd.model.printable import printable

USER_MANAGER = "init.scope"
"""The unit in which a manager itself runs (systemd.special(7))."""

_ESTABLISHED, _LISTEN = "01", "0A"
_LOOKUP = 1.0
"""Seconds for the lookup of a host name."""


class Holder(NamedTuple):
    """A process that listens; pid 0 and an empty unit if its files in /proc can't be read."""

    pid: int
    command: str
    unit: str
    uid: int

    def __str__(self) -> str:
        if not self.pid:
            return f"a process of uid {self.uid}"
        unit = f" ({self.unit})" if self.unit else ""
        return f"pid {self.pid}, {self.command}{unit}"


class ListeningSocket(NamedTuple):
    """A socket that listens; ``inode`` is what names it among the open files of its processes."""

    address: str
    port: int
    inode: str
    uid: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def _table() -> Iterator[list[str]]:
    """Yield the fields of the kernel's tables of TCP sockets."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                lines = file.readlines()[1:]
        except FileNotFoundError:
            continue
        yield from (line.split() for line in lines)


def _listeners() -> Iterator[ListeningSocket]:
    for fields in _table():
        if fields[3] == _LISTEN:
            address, _, port = fields[1].partition(":")
            yield ListeningSocket(_address(address), int(port, 16), fields[9], int(fields[7]))


def clients_of(port: int) -> Counter[str]:
    """Return how many TCP connections to PORT of this host's own addresses processes hold, by their unit.

    Those of processes whose files can't be read are counted under the empty name.
    """
    wanted = {
        fields[9]
        for fields in _table()
        if fields[3] == _ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port and fields[9] != "0"
    }
    found = dict.fromkeys(wanted, "")
    for entry in os.listdir("/proc") if wanted else ():
        if entry.isdigit() and (held := wanted & open_sockets(entry)):
            found |= dict.fromkeys(held, _unit_of(int(entry)))
    return Counter(found.values())


def _address(digits: str) -> str:
    """Return the address in a field of /proc/net/tcp, which has words of 32 bits in the host's byte order."""
    words = [bytes.fromhex(digits[at : at + 8]) for at in range(0, len(digits), 8)]
    return address_text(b"".join(word[::-1] if sys.byteorder == "little" else word for word in words))


def _meets(listener: ListeningSocket, wanted: str) -> bool:
    """Return whether a bind to WANTED may meet LISTENER; whether ``::`` takes IPv4 as well can't be read from /proc."""
    one = listener.address
    if one == wanted or one == "::" or wanted == "::":
        return True
    return (":" in one) == (":" in wanted) and (one in EVERY or wanted in EVERY)


def _unit_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            path = file.read().strip().rpartition(":")[2]
    except OSError:
        return ""
    return next((part for part in reversed(path.split("/")) if part.endswith((".service", ".scope"))), "")


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:
        return "?"
    text = b" ".join(word for word in words if word)[:80].decode("utf-8", "replace")
    return printable(text) or "?"


def open_sockets(pid: str) -> set[str]:
    """Return the inodes of the sockets that a process has open; none when its files can't be read."""
    found = set()
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        return found
    return found


def holders_of(port: int, address: str = "") -> list[Holder]:
    """Return the processes that listen on PORT where a bind to ADDRESS may meet them; of any local address without it.

    A socket that systemd made is held by the user manager too (`USER_MANAGER`); what it was made for comes first.
    """
    found = [each for each in _listeners() if each.port == port and (not address or _meets(each, address))]
    if not found:
        return []
    wanted = {each.inode for each in found}
    holders: list[Holder] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and wanted & open_sockets(entry):
            pid = int(entry)
            try:
                uid = os.stat(f"/proc/{entry}").st_uid
            except OSError:
                continue
            holders.append(Holder(pid, _command(pid), _unit_of(pid), uid))
    holders.sort(key=lambda holder: holder.unit == USER_MANAGER)
    return holders or [Holder(0, "", "", found[0].uid)]


def holder_of(port: int) -> Holder | None:
    """Return the process that listens on PORT of any local address, or None."""
    return next(iter(holders_of(port)), None)


def conflict(host: str, port: int) -> Holder | None:
    """Return who keeps a service whose URL has HOST from listening on PORT, or None if its bind(2) would succeed.

    A name with several local addresses is in conflict when all of them are.
    """
    if host in EVERY:
        wanted = [host]
    else:
        wanted = [str(info[4][0]) for info in local_addresses(host, port, time.monotonic() + _LOOKUP)]
    if not wanted or not all(is_bound(address, port) for address in wanted):
        return None
    for address in wanted:
        if holders := holders_of(port, address):
            return holders[0]
    return Holder(0, "", "", os.getuid())


def unit_listeners(control_group: str) -> list[ListeningSocket]:
    """Return the TCP sockets on which the processes of a control group listen, by port; empty when that can't be known.

    From sock_diag(7), which needs no right to see the processes: a service's own probe has none in the sandbox.
    """
    wanted = _group_ids(control_group)
    try:
        every = [each for family in (socket.AF_INET, socket.AF_INET6) for each in sockets(family, LISTEN)]
    except OSError:  # the profile "strict" allows no AF_NETLINK
        return []
    found = {
        ListeningSocket(each.address, each.port, str(each.inode), each.uid)
        for each in every
        if each.control_group in wanted
    }
    return sorted(found, key=lambda each: (each.port, each.address))


def _group_ids(control_group: str) -> set[int]:
    """Return the numbers by which the kernel knows a control group and those below it: of their directories' inodes."""
    for root in ROOTS:
        found = {os.stat(directory).st_ino for directory, _, _ in os.walk(root + control_group)}
        if found:
            return found
    return set()
