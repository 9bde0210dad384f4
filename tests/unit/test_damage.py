"""Journal files that are shorter than their headers say."""

import os
import struct
from pathlib import Path

from helmd.journal.damage import Truncated, truncated_files

FILE_ID = bytes(range(16))


def journal_file(path: Path, size: int, *, signature: bytes = b"LPKSHHRH", arena: int = 8_000_000) -> Path:
    """Return the header of a journal file (JOURNAL_FILE_FORMAT), and SIZE bytes in all."""
    header = bytearray(272)
    header[0:8] = signature
    header[24:40] = FILE_ID
    struct.pack_into("<QQ", header, 88, 272, arena)
    struct.pack_into("<QQ", header, 184, 111, 222)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(header)
    os.truncate(path, size)
    return path


def test_only_those_that_lack_their_end(tmp_path: Path) -> None:
    short = journal_file(tmp_path / "machine/system.journal", 5_000_000)
    flat = journal_file(tmp_path / "user-1000.journal", 272)
    journal_file(tmp_path / "machine/whole.journal", 8_000_272)
    journal_file(tmp_path / "machine/growing.journal", 9_000_000)
    other = journal_file(tmp_path / "machine/other.journal", 5_000_000, signature=b"NOTAJRNL")
    journal_file(tmp_path / "machine/empty.journal", 0)
    journal_file(tmp_path / "machine/stump.journal", 100)
    renamed = journal_file(tmp_path / "machine/system.journal~", 5_000_000)
    (tmp_path / "machine/directory.journal").mkdir()
    (tmp_path / "machine/gone.journal").symlink_to(tmp_path / "nowhere")
    notified = list(truncated_files((tmp_path, tmp_path / "not there")))
    truncated = {file for file in notified if file.path != other}
    assert truncated == {Truncated(FILE_ID.hex(), path, 111, 222) for path in (short, flat, renamed)}
    (headless,) = set(notified) - truncated
    assert headless.path == other and headless.first == 0 < headless.last
