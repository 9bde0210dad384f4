"""Reading many properties at once, from a bus that answers as dbus-daemon(1) and systemd do."""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from helmd.systemd.property_reader import Property, read_properties

SYSTEMD = b"org.freedesktop.systemd1"
UNIT = b"/org/freedesktop/systemd1/unit/hivematrix_2dcore_2eservice"
NAMES = (
    b"FragmentPath",
    b"DropInPaths",
    b"NeedDaemonReload",
    b"MainPID",
    b"ActiveEnterTimestamp",
    b"Gone",
    b"Followers",
)
PATHS = [b"/a/b.conf", b"/c.conf"]
VALUES = [b"/units/core.service", PATHS, True, 4711, 1_700_000_000_000_000, None, []]
WANTED = [Property(UNIT, SYSTEMD + b".Unit", name) for name in NAMES]


def aligned(given: bytes, size: int) -> bytes:
    return given + b"\0" * (-len(given) % size)


class FakeBus:
    """One connection of a client. ORDER is the byte order of what it sends, as in a message's first byte."""

    def __init__(self, listener: socket.socket, order: str, refuse: bytes) -> None:
        self.order = {"l": "<", "B": ">"}[order]
        self.mark = order.encode()
        self.asked: list[bytes] = []
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as file:
            assert file.readline() == b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n"
            assert file.readline() == b"BEGIN\r\n"
            file.write(refuse or b"OK 0123456789abcdef\r\n")
            while not refuse and (head := file.read(16)):
                self.answer(cast(BinaryIO, file), head)
                file.flush()

    def answer(self, file: BinaryIO, head: bytes) -> None:
        """Parses as the specification says, not as the reader writes."""
        kind, body_size, serial, fields_size = struct.unpack("<xBxxIII", head)
        assert kind == 1
        fields = file.read(fields_size)
        file.read(-fields_size % 8)
        body = file.read(body_size)
        assert len(fields) == fields_size and len(body) == body_size
        if b"Hello\0" in fields:
            file.write(self.message(2, serial, b"s", self.text(b":1.5")))
            file.write(self.message(4, 0, b"s", self.text(b":1.5")))
            return
        assert b"Get\0" in fields and UNIT in fields and SYSTEMD in fields and fields.endswith(b"\2ss\0")
        size = struct.unpack_from("<I", body)[0]
        at = 4 + size + 1
        at += -at % 4
        name = body[at + 4 : -1]
        assert struct.unpack_from("<I", body, at)[0] == len(name)
        self.asked.append(name)
        if name == b"Gone":
            file.write(self.message(3, serial, b"s", self.text(b"no such property")))
        else:
            file.write(self.message(2, serial, b"v", self.variant(VALUES[NAMES.index(name)])))

    def message(self, kind: int, serial: int, signature: bytes, body: bytes) -> bytes:
        fields = b"\5\1u\0" + struct.pack(f"{self.order}I", serial) if serial else b""
        fields += b"\x06\1s\0" + self.text(b":1.5")
        fields = aligned(fields, 8) + b"\x08\1g\0" + bytes([len(signature)]) + signature + b"\0"
        head = struct.pack(f"{self.order}cBBBIII", self.mark, kind, 1, 1, len(body), 9, len(fields))
        return aligned(head + fields, 8) + body

    def text(self, value: bytes) -> bytes:
        return struct.pack(f"{self.order}I", len(value)) + value + b"\0"

    def variant(self, value: object) -> bytes:
        if isinstance(value, bool):
            return b"\1b\0\0" + struct.pack(f"{self.order}I", value)
        if isinstance(value, int):
            wide = value >> 32
            return (b"\1t\0" + b"\0" * 5 if wide else b"\1u\0\0") + struct.pack(
                f"{self.order}{'Q' if wide else 'I'}", value
            )
        if isinstance(value, bytes):
            return b"\1s\0\0" + self.text(value)
        assert isinstance(value, list)
        items = b""
        for each in value:
            items = aligned(items, 4) + self.text(each)
        return b"\2as\0" + struct.pack(f"{self.order}I", len(items)) + items


@contextmanager
def bus(path: Path, order: str = "l", refuse: bytes = b"") -> Iterator[list[FakeBus]]:
    served: list[FakeBus] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=lambda: served.append(FakeBus(listener, order, refuse)))
        thread.start()
        yield served
        thread.join()


@pytest.mark.parametrize("order", ["l", "B"])
def test_values_of_each_type_in_the_order_in_which_they_are_wanted(tmp_path: Path, order: str) -> None:
    environment = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/bus"}
    with bus(tmp_path / "bus", order) as served:
        assert read_properties(environment, SYSTEMD, WANTED * 2) == VALUES * 2
    assert served[0].asked == [*NAMES, *NAMES]


def test_more_than_is_asked_at_once(tmp_path: Path) -> None:
    environment = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/bus"}
    with bus(tmp_path / "bus"):
        assert read_properties(environment, SYSTEMD, WANTED * 700) == VALUES * 700


def test_a_bus_that_can_not_be_asked_so_gives_nothing(tmp_path: Path) -> None:
    nothing = [None] * len(WANTED)
    for address in ("", f"unix:path={tmp_path}/none", "unix:abstract=x", "tcp:host=x", f"unix:path={tmp_path}/a%20b"):
        assert read_properties({"DBUS_SESSION_BUS_ADDRESS": address}, SYSTEMD, WANTED) == nothing
    for number, refuse in enumerate(
        [b"REJECTED EXTERNAL\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"OK 0\r\nno message of D-Bus"]
    ):
        path = tmp_path / str(number)
        with bus(path, refuse=refuse):
            assert read_properties({"DBUS_SESSION_BUS_ADDRESS": f"unix:path={path}"}, SYSTEMD, WANTED) == nothing
