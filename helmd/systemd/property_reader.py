"""Many properties at once over D-Bus: all requests are sent before the first reply is waited for.

A call of pystemd waits for its own reply, so reading nine properties of sixty units takes five times as long as bus and
manager work for it. This has as much of the protocol as that needs (D-Bus Specification, "Message Protocol").
"""

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_CALL, _RETURN, _ERROR = 1, 2, 3
"""Types of messages."""
_PATH, _INTERFACE, _MEMBER, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 5, 6, 8
"""Fields of a message's header."""
_BUS, _BUS_PATH = b"org.freedesktop.DBus", b"/org/freedesktop/DBus"
_PROPERTIES = b"org.freedesktop.DBus.Properties"
_AT_ONCE = 120
"""Requests that are sent at once: so few that the kernel holds their replies for a client that does not read yet."""
_CHUNK = 1 << 16
_LARGEST = 1 << 27
"""Bytes of the longest message."""
_SECONDS = 10.0
"""How long a reply is waited for."""


class Property(NamedTuple):
    """What is read: a property of an interface of the object at a path."""

    path: bytes
    interface: bytes
    name: bytes


def read_properties(environment: Mapping[str, str], destination: bytes, wanted: Sequence[Property]) -> list[Any]:
    """Return the value of each property WANTED of DESTINATION on the bus that ENVIRONMENT names, text as bytes.

    None where it was refused; of all if the bus can't be reached in this way, such as by a socket of another kind.
    """
    kind, _, path = environment.get("DBUS_SESSION_BUS_ADDRESS", "").partition("=")
    if kind == "unix:path" and not set(path) & {",", ";", "%"}:
        try:
            return _read(path, destination, wanted)
        except (OSError, ValueError, struct.error, IndexError, KeyError):
            pass
    return [None] * len(wanted)


def _read(bus: str, destination: bytes, wanted: Sequence[Property]) -> list[Any]:
    """Read them by the socket at BUS. Raises OSError, and other errors if it does not speak D-Bus."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SECONDS)
        connection.connect(bus)
        identity = str(os.geteuid()).encode().hex().encode()
        hello = _call(1, _BUS_PATH, _BUS, b"Hello", _BUS, b"", b"")
        connection.sendall(b"\0AUTH EXTERNAL " + identity + b"\r\nBEGIN\r\n" + hello)
        reader = _Reader(connection)
        reader.begin()
        values: list[Any] = []
        while len(values) < len(wanted):
            part = wanted[len(values) : len(values) + _AT_ONCE]
            connection.sendall(b"".join(_get(number, each, destination) for number, each in enumerate(part, 2)))
            found = dict(reader.reply() for _ in part)
            values += [found[number] for number in range(2, len(part) + 2)]
        return values


def _get(serial: int, wanted: Property, destination: bytes) -> bytes:
    interface = _text(wanted.interface)
    body = _padded(interface, 4) + _text(wanted.name)
    return _call(serial, wanted.path, _PROPERTIES, b"Get", destination, body, b"ss")


def _call(
    serial: int, path: bytes, interface: bytes, member: bytes, destination: bytes, body: bytes, signature: bytes
) -> bytes:
    # The first field starts at 16, so the padding between them is that of the message.
    fields = bytes([_PATH]) + b"\1o\0" + _text(path)
    for code, value in ((_INTERFACE, interface), (_MEMBER, member), (_DESTINATION, destination)):
        fields = _padded(fields, 8) + bytes([code]) + b"\1s\0" + _text(value)
    if signature:
        fields = _padded(fields, 8) + bytes([_SIGNATURE]) + b"\1g\0" + bytes([len(signature)]) + signature + b"\0"
    head = struct.pack("<cBBBIII", b"l", _CALL, 0, 1, len(body), serial, len(fields))
    return _padded(head + fields, 8) + body


def _text(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value + b"\0"


def _padded(given: bytes, size: int) -> bytes:
    return given + bytes(-len(given) % size)


class _Reader:
    """Replies as they come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()

    def begin(self) -> None:
        """Pass the answers to the authentication and to Hello."""
        while (end := self._received.find(b"\r\n")) < 0:
            self._more()
        if not self._received.startswith(b"OK "):
            raise ValueError("the bus refused the authentication")
        del self._received[: end + 2]
        if self.reply()[1] is None:
            raise ValueError("the bus refused the connection")

    def reply(self) -> tuple[int, Any]:
        """Return the serial number of the next reply's request, and its value: None of an error."""
        while True:
            kind, message, order, fields, body = self._message()
            if kind in (_RETURN, _ERROR):
                serial, signature = _header(message, order, fields)
                return serial, None if kind == _ERROR else _value(message, order, body, signature)

    def _message(self) -> tuple[int, bytes, str, int, int]:
        """Return the next message: its type, itself, its byte order, where its fields end and its body begins."""
        self._need(16)
        order = {b"l": "<", b"B": ">"}.get(bytes(self._received[:1]), "")
        if not order:
            raise ValueError("no message of D-Bus")
        length, _, fields = struct.unpack_from(f"{order}III", self._received, 4)
        body = 16 + fields + -fields % 8
        if body + length > _LARGEST:
            raise ValueError("a message of D-Bus is too long")
        self._need(body + length)
        message = bytes(self._received[: body + length])
        del self._received[: body + length]
        return message[1], message, order, 16 + fields, body

    def _need(self, size: int) -> None:
        while len(self._received) < size:
            self._more()

    def _more(self) -> None:
        chunk = self._connection.recv(_CHUNK)
        if not chunk:
            raise ConnectionResetError("the bus has ended the connection")
        self._received += chunk


def _header(message: bytes, order: str, end: int) -> tuple[int, bytes]:
    """Return the serial number that a reply has of its request, and the signature of its body."""
    at, serial, signature = 16, 0, b""
    while at < end:
        at += -at % 8
        code, kind = message[at], message[at + 2 : at + 3]
        value, at = _basic(message, order, at + 4, kind)
        if code == _REPLY_SERIAL:
            serial = value
        elif code == _SIGNATURE:
            signature = value
    return serial, signature


def _value(message: bytes, order: str, at: int, signature: bytes) -> Any:
    """Return the first value of a body; of a variant, what is in it."""
    if signature == b"v":
        signature, at = _basic(message, order, at, b"g")
    if signature != b"as":
        return _basic(message, order, at, signature)[0]
    at += -at % 4
    (size,) = struct.unpack_from(f"{order}I", message, at)
    at, end, found = at + 4, at + 4 + size, []
    while at < end:
        value, at = _basic(message, order, at, b"s")
        found.append(value)
    return found


def _basic(message: bytes, order: str, at: int, kind: bytes) -> tuple[Any, int]:
    """Return the value of a basic type at a position, and where it ends."""
    if kind == b"g":
        end = at + 1 + message[at]
        return message[at + 1 : end], end + 1
    size = 8 if kind == b"t" else 4
    at += -at % size
    (number,) = struct.unpack_from(order + ("Q" if kind == b"t" else "I"), message, at)
    at += size
    if kind in (b"s", b"o"):
        return message[at : at + number], at + number + 1
    if kind not in (b"b", b"t", b"u"):
        raise ValueError(f"no value of type {kind!r} is expected")
    return (bool(number) if kind == b"b" else number), at
