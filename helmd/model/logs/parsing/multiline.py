"""Joining the parts of a line that journald split, and the lines of an entry: indented lines after an error or a
warning, the dumps of `crash_dumps`, PostgreSQL's DETAIL, further lines of a message.

Only lines of one writer (``Key``) are joined; those of others are not delayed. All open entries can be serialized and
restored, so an incomplete entry survives a restart. Their size is limited: if it is exceeded, the oldest is returned
as it is. Times are the journal's, in microseconds since 1970.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from helmd.model.logs.entry import MESSAGE_LIMIT
from helmd.model.logs.parsing.crash_dumps import (
    ANY_ERROR,
    INCOMPLETE,
    INDENTED,
    OPEN_ENDED,
    continues,
    is_dotnet_head,
    level_after,
    start_of,
)
from helmd.model.logs.parsing.held_lines import HEADLINE, HELD, QUOTED, held_after

Key = tuple[str, int, str]
"""The writer of a line: service, pid, ``_STREAM_ID``."""

T = TypeVar("T")

MOST_LINES = 2_000
"""Maximum number of lines of an entry."""
MOST_OPEN = 256
MOST_BYTES = 8 * MESSAGE_LIMIT
"""Maximum number and size of all open entries; they are stored with the position of every batch."""

_UNFINISHED = frozenset({"line-max", "nul"})
"""Values of ``_LINE_BREAK`` before another part. The others, ``eof`` and ``pid-change``, end the line."""
_ERRORS = frozenset({"ERROR", "CRITICAL"})
_WAITING = _ERRORS | {"WARNING"}
"""Levels of lines after which a stack trace may follow."""
_CLOSE = 50_000
"""Maximum microseconds between an entry and a line without format or head that belongs to it."""
_MOST_HELD = 20
"""Maximum number of lines held until a later one confirms that they are a dump (`held_lines`)."""
_MOST_LOOSE = 50
"""Maximum number of lines without format or head in an entry."""


class SplitLine(NamedTuple, Generic[T]):
    """A line whose parts were joined: its bytes, and the payload of its first part."""

    raw: bytes
    payload: T
    parts: int
    continues: bool
    """Whether the line is incomplete: longer than MESSAGE_LIMIT, expired, or ended to limit memory."""


class JoinedEntry(NamedTuple, Generic[T]):
    """An entry whose lines were joined; ``payload`` is that of its first line."""

    payload: T
    more: str
    """The lines after the first one, each with a newline before it."""
    lines: int
    traceback: bool
    """Whether it has a stack trace or is a dump."""
    level: str | None = None
    """The level of the dump, if its first line states none."""


@dataclass(slots=True)
class _Open(Generic[T]):
    payload: T
    state: str
    size: int
    touched: int
    lines: list[str] = field(default_factory=list)
    traceback: bool = False
    level: str | None = None
    loose: int = 0
    """How many more lines without format or head may be added."""
    held: list[tuple[str, T]] = field(default_factory=list)
    """Lines that belong to it only if a later one confirms that they are a dump."""

    def joined(self) -> list[JoinedEntry[T]]:
        more = "".join(f"\n{line}" for line in self.lines)
        entry = JoinedEntry(self.payload, more, 1 + len(self.lines), self.traceback, self.level)
        return [entry, *(JoinedEntry(payload, "", 1, False) for _, payload in self.held)]


@dataclass(slots=True)
class _Split(Generic[T]):
    payload: T
    size: int
    touched: int
    parts: list[bytes]
    before: int = 0
    """Number of parts that `Joiner.dump` joined to one."""

    def joined(self, continues: bool = False) -> SplitLine[T]:
        return SplitLine(b"".join(self.parts), self.payload, self.before + len(self.parts), continues)


class Joiner(Generic[T]):
    """Joins lines. For each line call `part` if journald split it or its writer is in ``splits``; then `add`; and if
    that returns False, `push`.
    """

    def __init__(self) -> None:
        self.opened: dict[Key, _Open[T]] = {}
        self.splits: dict[Key, _Split[T]] = {}
        """Read-only for callers: the writers of open entries, and of lines with missing parts."""
        self._open_bytes = 0
        self._split_bytes = 0

    def part(self, key: Key, raw: bytes, line_break: str, payload: T, realtime: int) -> list[SplitLine[T]]:
        """Add a part of a line; return the lines that this completes, in order.

        LINE_BREAK is its ``_LINE_BREAK`` (systemd.journal-fields(7)), "" for the last part. RAW is bytes, since
        journald splits within characters.
        """
        done: list[SplitLine[T]] = []
        if line_break == "nul":
            raw += b"\0"
        split = self.splits.get(key)
        if split is not None and split.size + len(raw) > MESSAGE_LIMIT:
            done.append(self._end_split(key).joined(continues=True))
            split = None
        unfinished = line_break in _UNFINISHED
        if split is None:
            if not unfinished:
                return [*done, SplitLine(raw, payload, 1, False)]
            self.splits[key] = split = _Split(payload, 0, realtime, [])
        split.parts.append(raw)
        split.size += len(raw)
        split.touched = realtime
        self._split_bytes += len(raw)
        if not unfinished:
            done.append(self._end_split(key).joined())
        while len(self.splits) > MOST_OPEN or self._split_bytes > MOST_BYTES:
            done.append(self._end_split(next(iter(self.splits))).joined(continues=True))
        return done

    def _end_split(self, key: Key) -> _Split[T]:
        split = self.splits.pop(key)
        self._split_bytes -= split.size
        return split

    def add(self, key: Key, text: str, realtime: int) -> bool:
        """Add TEXT to the open entry of KEY if it continues it; otherwise return False, for `push`."""
        entry = self.opened.get(key)
        if entry is None:
            return False
        state = continues(entry.state, text)
        size = _bytes(text) + 1
        if state is None or entry.size + size > MESSAGE_LIMIT or len(entry.lines) + 1 >= MOST_LINES:
            return False
        if self._open_bytes + size > MOST_BYTES:
            return False
        if entry.state in HELD:
            entry.lines += [line for line, _ in entry.held]
            entry.held.clear()
            entry.level = level_after(state)
        elif state not in (ANY_ERROR, INDENTED) and not entry.traceback:
            entry.level = entry.level or level_after(state)
        entry.traceback = entry.traceback or state not in (ANY_ERROR, INDENTED)
        if state in OPEN_ENDED and entry.state not in OPEN_ENDED:
            entry.loose = _MOST_LOOSE
        entry.state = state
        self._append(entry, text, size, realtime)
        return True

    def _append(self, entry: _Open[T], text: str, size: int, realtime: int) -> None:
        entry.lines.append(text)
        entry.size += size
        entry.touched = realtime
        self._open_bytes += size

    def add_plain(self, key: Key, text: str, payload: T, realtime: int) -> bool:
        """Add TEXT, for which `add` returned False and which has no level or head, to the open entry of KEY if it can
        only be a further line of its message; otherwise return False, for `push`.
        """
        entry = self.opened[key]
        size = _bytes(text) + 1
        if realtime - entry.touched > _CLOSE or entry.size + size > MESSAGE_LIMIT or text.startswith(" * "):
            return False
        if self._open_bytes + size > MOST_BYTES:
            return False
        if len(entry.held) < _MOST_HELD and (held := held_after(entry.state, text)) is not None:
            entry.held.append((text, payload))
            entry.state, entry.touched = held, realtime
            entry.size += size
            self._open_bytes += size
            return True
        if (
            entry.loose == 0
            or (entry.state not in OPEN_ENDED and entry.state != ANY_ERROR)
            or ((start := start_of(text)) is not None and start.state not in (QUOTED, HEADLINE))
        ):
            return False
        entry.loose -= 1
        self._append(entry, text, size, realtime)
        return True

    def push(
        self,
        key: Key,
        text: str,
        level: str,
        payload: T,
        realtime: int,
        complete: bool = False,
        stated: bool = False,
        several: bool = False,
    ) -> list[JoinedEntry[T]]:
        """Add a line that begins an entry; return the entries that this finishes, in order.

        Its own is among them if no line can continue it (COMPLETE, or no error).

        STATED: the text names LEVEL itself. SEVERAL: its message may continue in lines without format or head.
        """
        state, dump_level, traceback = _opens(text, level, complete, stated)
        done: list[JoinedEntry[T]] = []
        if key in self.opened:
            before = self._end(key)
            done += before.joined()
            # A line that exceeds the size of an entry begins another one.
            if before.state not in HELD and (goes_on := continues(before.state, text)) is not None:
                state, traceback, dump_level = goes_on, before.traceback, before.level
        if state is None:
            done.append(JoinedEntry(payload, "", 1, False))
            return done
        size = _bytes(text)
        loose = _MOST_LOOSE if several or state in OPEN_ENDED else 0
        self.opened[key] = _Open(payload, state, size, realtime, traceback=traceback, level=dump_level, loose=loose)
        self._open_bytes += size
        while len(self.opened) > MOST_OPEN or self._open_bytes > MOST_BYTES:
            done += self._end(next(iter(self.opened))).joined()
        return done

    def _end(self, key: Key) -> _Open[T]:
        entry = self.opened.pop(key)
        self._open_bytes -= entry.size
        return entry

    def expire_parts(self, before: int) -> list[SplitLine[T]]:
        """Return incomplete lines whose last part is older than BEFORE. They are still to be added or pushed."""
        old = [key for key, split in self.splits.items() if split.touched < before]
        return [self._end_split(key).joined(continues=True) for key in old]

    def expire(self, before: int, incomplete_before: int | None = None) -> list[JoinedEntry[T]]:
        """Return entries whose last line is older than BEFORE, or than INCOMPLETE_BEFORE if they are incomplete."""
        deadline = before if incomplete_before is None else incomplete_before
        old = [
            key
            for key, entry in self.opened.items()
            if entry.touched < (deadline if entry.state in INCOMPLETE else before)
        ]
        return [joined for key in old for joined in self._end(key).joined()]

    def __len__(self) -> int:
        """Return the number of open entries and incomplete lines."""
        return len(self.opened) + len(self.splits)

    def dump(self, encode: Callable[[T], Any]) -> dict[str, Any]:
        """Return all open entries and incomplete lines in a form that JSON can hold; ENCODE converts payloads."""
        return {
            "open": [
                [
                    *(list(key), encode(e.payload), e.state, e.size, e.touched, list(e.lines), e.traceback),
                    *(e.level, e.loose, [[line, encode(payload)] for line, payload in e.held]),
                ]
                for key, e in self.opened.items()
            ],
            "splits": [
                [
                    list(key),
                    encode(s.payload),
                    s.touched,
                    s.before + len(s.parts),
                    b64encode(b"".join(s.parts)).decode(),
                ]
                for key, s in self.splits.items()
            ],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], decode: Callable[[Any], T]) -> "Joiner[T]":
        """Return the joiner of which `dump` returned STATE. Raises ValueError for other values."""
        joiner = cls()
        try:
            for key, payload, name, size, touched, lines, traceback, *later in state["open"]:
                # Version 1.1 wrote no more than that.
                level, loose, held = later or ("ERROR" if traceback else None, 0, [])
                joiner.opened[_key(key)] = _Open(
                    *(decode(payload), name, size, touched, list(lines), traceback, level, loose),
                    [(line, decode(inner)) for line, inner in held],
                )
                joiner._open_bytes += size
            for key, payload, touched, count, encoded in state["splits"]:
                raw = b64decode(encoded)
                joiner.splits[_key(key)] = _Split(decode(payload), len(raw), touched, [raw], count - 1)
                joiner._split_bytes += len(raw)
        except (KeyError, TypeError) as problem:
            raise ValueError(f"this is not the state of a joiner: {problem}") from None
        return joiner


def _key(written: list[Any]) -> Key:
    service, pid, stream = written
    return service, pid, stream


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def opens(text: str, level: str, stated: bool = False) -> bool:
    """Return whether an entry that begins with TEXT, and whose format allows more lines, may have some.

    If not, it must only be pushed if its writer has an open entry.
    """
    if stated:
        return level in _WAITING or (text[-1:] == "]" and is_dotnet_head(text))
    return level in _ERRORS or start_of(text) is not None


def _opens(text: str, level: str, complete: bool, stated: bool) -> tuple[str | None, str | None, bool]:
    """Return the state of an entry that begins with TEXT, None if no line can continue it; its level as a dump; and
    whether it is known to be one.
    """
    if complete:
        return None, None, False
    if not stated and (start := start_of(text)) is not None:
        return start.state, start.level, start.level is not None
    if stated and level not in _WAITING and is_dotnet_head(text):
        return INDENTED, None, False
    waits = level in _ERRORS or (stated and level in _WAITING)
    return (ANY_ERROR if waits else None), None, False
