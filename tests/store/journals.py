"""Real journal files without a journald: systemd-journal-remote(8) writes them from the journal's export format."""

import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

REMOTE = "/lib/systemd/systemd-journal-remote"
UID = 4711
MACHINE = "a" * 32
BOOT_A, BOOT_B, BOOT_C = "1" * 32, "2" * 32, "3" * 32
START = 1_700_000_000_000_000
SECOND = 1_000_000


def line(
    message: str | bytes,
    monotonic: int,
    *,
    boot: str = BOOT_A,
    realtime: int | None = None,
    uid: int = UID,
    service: str = "core",
    fields: Mapping[str, str] | None = None,
) -> bytes:
    """Return one entry, as a service prints it; its wall clock shows START at the boot by default."""
    shown = START + monotonic if realtime is None else realtime
    text = {
        "__REALTIME_TIMESTAMP": str(shown),
        "__MONOTONIC_TIMESTAMP": str(monotonic),
        "_BOOT_ID": boot,
        "_MACHINE_ID": MACHINE,
        "_HOSTNAME": "testhost",
        "_UID": str(uid),
        "_PID": "77",
        "_TRANSPORT": "stdout",
        "_SYSTEMD_USER_UNIT": f"hivematrix-{service}.service",
        "SYSLOG_IDENTIFIER": f"hivematrix-{service}",
        "PRIORITY": "6",
        **(fields or {}),
    }
    raw = message.encode() if isinstance(message, str) else message
    head = "".join(f"{name}={value}\n" for name, value in text.items()).encode()
    # The binary form (length before data) allows any bytes.
    return head + b"MESSAGE\n" + struct.pack("<Q", len(raw)) + raw + b"\n\n"


def lines(first: int, last: int, *, boot: str = BOOT_A, each: int = 1, realtime: int | None = None) -> list[bytes]:
    """Return entries ``FIRST`` to ``LAST``, a millisecond apart, or EACH of them in the same microsecond."""
    numbers = range(first, last + 1)
    return [line(f"{boot[0]}-{n}", SECOND + n // each * 1000, boot=boot, realtime=realtime) for n in numbers]


def append(file: Path, entries: Iterable[bytes]) -> None:
    """Write entries to the end of a journal file; a new file gets a new sequence number id."""
    command = [REMOTE, "--split-mode=none", "--compress=no", "-o", str(file), "-"]
    subprocess.run(command, input=b"".join(entries), check=True, stderr=subprocess.DEVNULL)


def continue_numbers(file: Path, before: Path, first: int) -> None:
    """Make FILE the one that journald would have begun when it rotated BEFORE away, its numbers starting at FIRST."""
    data = bytearray(file.read_bytes())
    # JOURNAL_FILE_FORMAT: seqnum_id at 72, header_size at 88; head and tail sequence numbers at 168 and 160.
    data[72:88] = before.read_bytes()[72:88]
    for offset in (160, 168):
        _add(data, offset, first - 1)
    for offset in _entries(data):
        _add(data, offset + 16, first - 1)
    file.write_bytes(data)


def damage(file: Path, share: float, size: int) -> None:
    """Write garbage over SIZE bytes at SHARE of what is used of a file."""
    data = bytearray(file.read_bytes())
    places = list(_entries(data))
    start = places[int(len(places) * share)]
    data[start : start + size] = bytes((7 * n + 13) % 256 for n in range(size))
    file.write_bytes(data)


FIELDS = {"seqnum": 16, "realtime": 24, "monotonic": 32, "boot_id": 40, "boot_id_end": 48}
"""Offsets of 64-bit fields in an entry object (JOURNAL_FILE_FORMAT)."""


def flip_bit(file: Path, number: int, field: str, bit: int) -> None:
    """Flip one bit of a field of a file's entry NUMBER, counted from 0; -1 is the last one."""
    data = bytearray(file.read_bytes())
    data[list(_entries(data))[number] + FIELDS[field] + bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def flip_bit_of(file: Path, content: bytes, bit: int, part: str = "content") -> None:
    """Flip one bit of the first object with CONTENT, a field's name or ``NAME=value``: of its size, or another PART."""
    data = bytearray(file.read_bytes())
    # HEADER_INCOMPATIBLE_COMPACT
    kind, before = (1, 72 if data[12] & 1 << 4 else 64) if b"=" in content else (2, 40)
    place = next(at for each, at in _objects(data) if each == kind and data.startswith(content, at + before))
    data[place + {"content": before, "size": 8, "n_entries": 56}[part] + bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def begin_writing(file: Path, boot: str) -> None:
    """Have the header say what journald 252 writes into it at opening, before the first entry of a BOOT."""
    data = bytearray(file.read_bytes())
    data[56:72] = bytes.fromhex(boot)
    file.write_bytes(data)


def _entries(data: bytearray) -> Iterator[int]:
    """Return where the entry objects (type 3) of a journal file are."""
    return (place for kind, place in _objects(data) if kind == 3)


def _objects(data: bytearray) -> Iterator[tuple[int, int]]:
    """Yield the type of each object of a journal file, and where it is."""
    (offset,) = struct.unpack_from("<Q", data, 88)
    (tail,) = struct.unpack_from("<Q", data, 136)
    while offset <= tail:
        size = struct.unpack_from("<Q", data, offset + 8)[0]
        yield data[offset], offset
        offset += (size + 7) // 8 * 8


def _add(data: bytearray, offset: int, number: int) -> None:
    (value,) = struct.unpack_from("<Q", data, offset)
    struct.pack_into("<Q", data, offset, value + number)
