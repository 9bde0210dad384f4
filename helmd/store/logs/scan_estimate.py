"""Scanning for a text: how many entries to read next, and when its index is to be used instead."""

from dataclasses import dataclass

MIN_CHUNK, MAX_CHUNK = 2_000, 10_000
"""Entries scanned per statement: at first and at least, and at most."""
_MARGIN = 1.5
"""Entries scanned for the rest of a page, as a multiple of those that are expected to fill it."""
COMMON_CHUNKS = 4
"""A text counts as common if scanning this many chunks would fill the page."""
_MIN_SCANS = 3
"""Chunks scanned before the index is used, though they had few entries together."""


@dataclass(slots=True)
class ScanEstimate:
    """The share of matches in the entries scanned last: at least `MIN_CHUNK`, if there were as many.

    Not in all of them, since matches come in bursts, which say nothing about older entries.
    """

    _seen: int = 0
    _hits: int = 0
    _chunks: int = 0

    def add(self, seen: int, hits: int) -> None:
        """Add a chunk of SEEN entries, of which HITS match."""
        if self._seen >= MIN_CHUNK:
            self._seen = self._hits = self._chunks = 0
        self._seen += seen
        self._hits += hits
        self._chunks += 1

    @property
    def known(self) -> bool:
        """Whether it is based on enough entries, or on several days that are nearly empty."""
        return self._seen >= MIN_CHUNK or self._chunks >= _MIN_SCANS

    def is_common(self, needed: int) -> bool:
        """Return whether scanning a few more chunks will probably find NEEDED matches."""
        return self._hits * MAX_CHUNK * COMMON_CHUNKS >= needed * self._seen

    def next_chunk(self, needed: int) -> int:
        """Return how many entries to scan for NEEDED matches."""
        if not self.known:
            return MIN_CHUNK
        if not self._hits:
            return MAX_CHUNK
        return max(MIN_CHUNK, min(MAX_CHUNK, round(_MARGIN * needed * self._seen / self._hits)))
