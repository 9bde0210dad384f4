"""Every socket of this machine that takes what others send: of all families, with the unit that it belongs to.

TCP and UDP sockets have the control group in which they were made (sock_diag(7)). For the others the kernel has
tables in /proc/net without it, so that their processes are searched; those whose files can't be read stay unknown.
"""

import os
import socket
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helmd.health.control_group import control_group_of, every_control_group
from helmd.health.sock_diag import LISTEN, UNCONNECTED, TcpSocket, address_text, sockets
from helmd.model.identity.group_unit import unit_of_group
from helmd.model.security.listeners import OpenEnd, SocketFamily

_IPPROTO_UDPLITE = 136
_ACCEPTS = 0x10000
"""The flag of listening unix sockets in /proc/net/unix (__SO_ACCEPTCON)."""
_DATAGRAM = "0002"
_SCTP_LISTENS = "10"
_PROTOCOL_NAME = "system.sockprotoname"
"""The attribute of a socket's file that names its protocol."""
_NAMES: Mapping[str, SocketFamily] = {
    "RAW": "raw", "RAWv6": "raw", "PACKET": "packet", "AF_VSOCK": "vsock", "SCTP": "sctp", "SCTPv6": "sctp",
}  # fmt: skip
_HARMLESS = ("TCP", "TCPv6", "UDP", "UDPv6", "UDP-Lite", "UDPLITEv6", "UNIX", "UNIX-STREAM", "NETLINK", "MPTCP",
             "MPTCPv6", "PING", "PINGv6", "ALG", "AF_ALG", "KEY")  # fmt: skip
"""Protocols whose sockets are in a table if they take anything, or that other programs can't send to."""
_MOST_SOCKETS = 50_000


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who has a socket open. ``pid`` is one of its processes."""

    pid: str
    uid: int
    group: str | None


@dataclass(slots=True)
class SocketTable:
    """The sockets, and why some may be missing. UID is the account whose processes can be looked into."""

    uid: int
    ends: list[OpenEnd] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Sentences without a full stop."""


def socket_table(uid: int, proc: Path = Path("/proc")) -> SocketTable:
    """Read it. Raises OSError where not even TCP sockets can be listed."""
    table = SocketTable(uid)
    owners = _owners(proc)
    groups = {number: path for path, number in every_control_group()}
    seen: set[int] = set()
    for family, protocol, state in (
        ("tcp", socket.IPPROTO_TCP, LISTEN),
        ("udp", socket.IPPROTO_UDP, UNCONNECTED),
        ("udplite", _IPPROTO_UDPLITE, UNCONNECTED),
    ):
        try:
            found = [
                each
                for version in (socket.AF_INET, socket.AF_INET6)
                for each in sockets(version, state, protocol)
                if each.port
            ]
        except OSError as error:
            found = list(_in_table(proc, family))
            if family == "tcp" or not found:
                table.missing += [f"{family} sockets: {error.strerror or error}"] if family != "udplite" else []
        seen |= {each.inode for each in found}
        table.ends += [_of_inet(each, family, owners, groups) for each in found]  # type: ignore[arg-type]
    for end, inode in _others(proc, owners, uid):
        seen.add(inode)
        table.ends.append(end)
    table.ends += _unlisted(proc, owners, uid, seen)
    return table


def _of_inet(
    found: TcpSocket, family: SocketFamily, owners: Mapping[int, _Owner], groups: Mapping[int, str]
) -> OpenEnd:
    owner = owners.get(found.inode)
    path = groups.get(found.control_group) if found.control_group is not None else None
    # Kernels before 5.15 say the root for all once net_cls or net_prio is in use.
    if path in (None, "/") and owner is not None:
        path = owner.group
    return _end(family, found.address, found.port, found.uid, path)


def _end(
    family: SocketFamily, address: str, port: int | None, uid: int | None, path: str | None, shared: bool = False
) -> OpenEnd:
    unit = None if path is None else unit_of_group(path)
    return OpenEnd(family, address, port, uid, unit.unit if unit else None, unit.manager if unit else None, shared)


def _owners(proc: Path) -> dict[int, _Owner]:
    """Return who has which socket open, by inode, of the processes whose files can be read."""
    found: dict[int, _Owner] = {}
    for entry in os.listdir(proc):
        if not entry.isdecimal():
            continue
        try:
            names = os.listdir(proc / entry / "fd")
            uid = os.stat(proc / entry).st_uid
        except OSError:
            continue
        group = control_group_of(entry) if proc == Path("/proc") else None
        for name in names:
            try:
                target = os.readlink(proc / entry / "fd" / name)
            except OSError:
                continue
            if target.startswith("socket:[") and len(found) < _MOST_SOCKETS:
                # The last one counts: a socket that systemd made and handed over belongs to who uses it.
                found[int(target[8:-1])] = _Owner(entry, uid, group)
    return found


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        with open(path, errors="surrogateescape") as file:
            next(file, None)
            for line in file:
                yield line.rstrip("\n").split(maxsplit=15)
    except OSError:
        return


def _in_table(proc: Path, family: str) -> Iterator[TcpSocket]:
    """Yield the TCP or UDP sockets in /proc/net, where sock_diag(7) is not available."""
    wanted = "0A" if family == "tcp" else "07"
    for name in (family, f"{family}6"):
        for fields in _rows(proc / "net" / name):
            if len(fields) > 9 and fields[3] == wanted:
                address, port = _local(fields[1])
                if port:
                    yield TcpSocket(address, port, "", 0, int(wanted, 16), int(fields[7]), int(fields[9]), None)


def _local(text: str) -> tuple[str, int]:
    """Return the address and port in a field of a table such as /proc/net/tcp."""
    digits, _, port = text.partition(":")
    words = [bytes.fromhex(digits[at : at + 8]) for at in range(0, len(digits), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return address_text(raw), int(port, 16)


def _others(proc: Path, owners: Mapping[int, _Owner], uid: int) -> Iterator[tuple[OpenEnd, int]]:
    """Yield sockets of other families that have tables, with their inodes."""

    def made(
        family: SocketFamily, address: str, port: int | None, inode: int, owned: int | None, shared: bool = False
    ) -> tuple[OpenEnd, int]:
        owner = owners.get(inode)
        who = owned if owned is not None else owner.uid if owner else None
        return _end(family, address, port, who, owner.group if owner else None, shared), inode

    for name in ("raw", "raw6"):
        for fields in _rows(proc / "net" / name):
            if len(fields) > 9:
                address, protocol = _local(fields[1])
                yield made("raw", f"{address} protocol {protocol}", None, int(fields[9]), int(fields[7]))
    for fields in _rows(proc / "net/packet"):
        if len(fields) > 8:
            yield made("packet", f"protocol {int(fields[3], 16):#06x}", None, int(fields[8]), int(fields[7]))
    for fields in _rows(proc / "net/sctp/eps"):
        if len(fields) > 7 and fields[3] == _SCTP_LISTENS:
            address = fields[8].split()[0] if len(fields) > 8 else ""
            yield made("sctp", address, int(fields[5]), int(fields[7]), int(fields[6]))
    for fields in _rows(proc / "net/unix"):
        if len(fields) < 8:
            continue
        if not int(fields[3], 16) & _ACCEPTS and fields[4] != _DATAGRAM:
            continue
        inode, name = int(fields[6]), " ".join(fields[7:])
        yield made("unix", name, None, inode, None, _connectable(name, inode, owners, uid))


def _connectable(name: str, inode: int, owners: Mapping[int, _Owner], uid: int) -> bool:
    """Return whether other accounts can connect to the unix socket NAME of the account UID (unix(7))."""
    owner = owners.get(inode)
    if not name.startswith("/") or owner is None or owner.uid != uid:
        return False
    try:
        facts = os.lstat(name)
    except OSError:
        # Only its own mount namespace has it.
        return False
    if not stat.S_ISSOCK(facts.st_mode) or facts.st_uid != uid or not facts.st_mode & stat.S_IWOTH:
        return False
    return all(_enterable(directory) for directory in Path(name).parents)


def _enterable(directory: Path) -> bool:
    try:
        return bool(os.stat(directory).st_mode & stat.S_IXOTH)
    except OSError:
        return False


def _unlisted(proc: Path, owners: Mapping[int, _Owner], uid: int, seen: Iterable[int]) -> Iterator[OpenEnd]:
    """Yield sockets of the account's processes whose family has no table, such as AF_VSOCK: once for each unit and
    family.
    """
    known, once = set(seen), set[tuple[str, str | None]]()
    for inode, owner in owners.items():
        if inode in known or owner.uid != uid:
            continue
        protocol = _protocol(proc / owner.pid / "fd", inode)
        if protocol is None or protocol in _HARMLESS or (protocol, owner.group) in once:
            continue
        once.add((protocol, owner.group))
        yield _end(_NAMES.get(protocol, "other"), protocol, None, owner.uid, owner.group)


def _protocol(directory: Path, inode: int) -> str | None:
    """Return the protocol of the socket INODE among the open files in DIRECTORY, or None if it can't be known."""
    try:
        for name in os.listdir(directory):
            path = directory / name
            if os.readlink(path) == f"socket:[{inode}]":
                return os.getxattr(path, _PROTOCOL_NAME).rstrip(b"\0").decode("ascii", "replace")
    except OSError:
        return None
    return None
