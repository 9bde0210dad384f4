"""Reducing this process's resident memory: pages of mapped journal files, and freed memory of the allocators.

libsystemd maps hundreds of megabytes of journal files, and the pages read count as resident as long as they are mapped.
madvise(2) with MADV_DONTNEED removes them from the process; the kernel's page cache keeps them for the next read.
"""

import ctypes
import gc
import mmap
from functools import cache
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_FIELDS = 6


def release_pages() -> None:
    """Release the resident pages of mapped journal files.

    Takes at most a millisecond, and does not change what is read.
    """
    madvise = _libc().madvise
    # proc(5): range, permissions, offset, device, inode, path.
    for line in _MAPS.read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=_FIELDS - 1)
        if len(fields) < _FIELDS or ".journal" not in fields[5] or not fields[1].endswith("s"):
            continue  # MADV_DONTNEED discards the data of private mappings
        first, end = (int(number, 16) for number in fields[0].split("-"))
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)


def trim_heap() -> None:
    """Return freed memory to the kernel: reference cycles, Python's free lists, and malloc's free pages.

    Takes some tens of milliseconds.
    """
    gc.collect()
    _libc().malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL:
    # Cached: each CDLL is a reference cycle, which keeps a megabyte of Python's memory from being released.
    return ctypes.CDLL(None)
