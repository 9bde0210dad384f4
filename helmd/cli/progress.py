"""How far a download is, on stderr."""

import sys
import time

from helmd.cli import output


class DownloadProgress:
    """Progress of a download: one line rewritten on a terminal, a line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next and done < total:
            return
        self._next = now + (0.1 if self._live else 3.0)
        output.print_progress(f"  {done / 1e6:.0f} of {total / 1e6:.0f} MB", last=done >= total)
