"""Gives back memory: that of mapped journal files, and what was freed.

libsystemd maps hundreds of megabytes of them, and what was read of those counts as this process's memory for as long as
they are mapped. After madvise(2) with MADV_DONTNEED the kernel takes it out of the process and keeps
it in its page cache, from where it comes back when it is read again.
"""

import ctypes
import gc
import mmap
from functools import cache
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_FIELDS = 6


def give_back() -> int:
    """Release the pages of mapped journal files; return how many bytes are mapped.

    Takes at most a millisecond, and does not change what is read.
    """
    madvise = _libc().madvise
    mapped = 0
    # proc(5): range, permissions, offset, device, inode, path.
    for line in _MAPS.read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=_FIELDS - 1)
        if len(fields) < _FIELDS or ".journal" not in fields[5] or not fields[1].endswith("s"):
            continue  # in what is not shared MADV_DONTNEED would throw away data
        first, end = (int(number, 16) for number in fields[0].split("-"))
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)
        mapped += end - first
    return mapped


def give_back_freed() -> None:
    """Give back what was freed: reference cycles, what Python keeps for reuse, and malloc's free pages; this takes
    some ten milliseconds.
    """
    gc.collect()
    _libc().malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL:
    # Once: each one is a reference cycle, which keeps a megabyte of Python's memory from being given back.
    return ctypes.CDLL(None)
