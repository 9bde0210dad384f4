"""TCP and UDP sockets as the kernel knows them (sock_diag(7), ``linux/inet_diag.h``), whosever they are."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = 1, 4, 5, 8, 9, 10, 11
"""States of TCP (``net/tcp_states.h``)."""
UNCONNECTED = 7
"""The state of UDP sockets that take what anybody sends (TCP_CLOSE)."""

_NETLINK_SOCK_DIAG, _BY_FAMILY, _ERROR, _CGROUP_ID = 4, 20, 2, 21
_REQUEST, _DUMP = 0x1, 0x300
"""Flags of a request (linux/netlink.h)."""
_ANY_COOKIE = b"\xff" * 8
_HEADER = struct.Struct("=IHHII")
"""A ``struct nlmsghdr``."""
_QUESTION = struct.Struct("=BBBxI")
"""A ``struct inet_diag_req_v2`` without the socket's id at its end."""
_MESSAGE = 72
"""The size of ``struct inet_diag_msg``."""
_MAPPED = b"\0" * 10 + b"\xff\xff"
"""How IPv6 addresses begin that stand for IPv4 ones (RFC 4291, section 2.5.5.2)."""
_SECONDS = 1.0


class TcpSocket(NamedTuple):
    """A socket: its own end, the other end, its state and owner.

    ``control_group`` is the number of the control group in which it was made, which it keeps when it is passed to
    another process: the inode of that group's directory in the unified hierarchy. None if the kernel doesn't say.
    """

    address: str
    port: int
    remote_address: str
    remote_port: int
    state: int
    uid: int
    inode: int
    control_group: int | None


def address_text(raw: bytes) -> str:
    """Return an address of 4 or 16 bytes as text; of one that stands for an IPv4 one, that."""
    if raw.startswith(_MAPPED):
        raw = raw[len(_MAPPED) :]
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def sockets(family: int, state: int, protocol: int = socket.IPPROTO_TCP) -> Iterator[TcpSocket]:
    """Yield all sockets of this network namespace in STATE. Raises OSError.

    With another PROTOCOL those of UDP (its sockets without a peer are in UNCONNECTED), or UDP-Lite.
    """
    yield from _answers(family, _REQUEST | _DUMP, 1 << state, bytes(48), protocol)


def socket_between(address: str, port: int, remote: str, remote_port: int, interface: int = 0) -> TcpSocket | None:
    """Return the socket with exactly these ends, or None. INTERFACE is the number of a link-local address's.

    The kernel looks for a listening socket where no other fits; that is none here. Raises OSError.
    """
    own, other = _packed(address), _packed(remote)
    identity = struct.pack("!HH16s16s", port, remote_port, own, other) + struct.pack("=I", interface) + _ANY_COOKIE
    family = socket.AF_INET if len(own) == 4 else socket.AF_INET6
    wanted = (address_text(own), port, address_text(other), remote_port)
    return next((found for found in _answers(family, _REQUEST, 0, identity) if found[:4] == wanted), None)


def _packed(address: str) -> bytes:
    raw = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address.partition("%")[0])
    return raw.removeprefix(_MAPPED) if len(raw) == 16 else raw


def _answers(
    family: int, flags: int, states: int, identity: bytes, protocol: int = socket.IPPROTO_TCP
) -> Iterator[TcpSocket]:
    question = _QUESTION.pack(family, protocol, 0, states) + identity
    request = _HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, flags, 1, 0) + question
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as connection:
        connection.settimeout(_SECONDS)
        connection.sendto(request, (0, 0))
        while True:
            received = connection.recv(1 << 18)
            while len(received) >= _HEADER.size:
                length, kind, *_ = _HEADER.unpack_from(received)
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", received, _HEADER.size)[0]
                    if number in (0, errno.ENOENT):
                        return
                    raise OSError(number, os.strerror(number))
                if kind != _BY_FAMILY or length < _HEADER.size + _MESSAGE:
                    return
                yield _socket(received[_HEADER.size : length])
                received = received[(length + 3) & ~3 :]
            if not flags & _DUMP:
                return


def _socket(message: bytes) -> TcpSocket:
    """Return the socket in a ``struct inet_diag_msg`` with its attributes."""
    family, state = message[0], message[1]
    size = 16 if family == socket.AF_INET6 else 4
    port, remote_port = struct.unpack_from("!HH", message, 4)
    uid, inode = struct.unpack_from("=II", message, _MESSAGE - 8)
    ends = (address_text(message[8 : 8 + size]), port, address_text(message[24 : 24 + size]), remote_port)
    rest = message[_MESSAGE:]
    while len(rest) >= 4:
        length, kind = struct.unpack_from("=HH", rest)
        if length < 4:
            break
        if kind == _CGROUP_ID and length >= 12:
            return TcpSocket(*ends, state, uid, inode, struct.unpack_from("=Q", rest, 4)[0])
        rest = rest[(length + 3) & ~3 :]
    return TcpSocket(*ends, state, uid, inode, None)
