"""Whether the machine's clock is synchronized (adjtimex(2)), whichever program does it."""

import ctypes

_ERROR = 5
"""TIME_ERROR: the clock is not synchronized."""
_STRUCT_TIMEX_SIZE = 256
"""More than struct timex needs; its first field, ``modes``, is 0, which only reads."""


def is_synchronized() -> bool:
    """False also where that can't be known: a container may not ask."""
    state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_STRUCT_TIMEX_SIZE))
    return 0 <= state < _ERROR
