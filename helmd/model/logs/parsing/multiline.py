"""Which lines belong together: the parts that journald split one line into, and the lines that go on an entry
(tracebacks, stack traces, PostgreSQL's DETAIL, what is indented below an error).

Lines of one writer (``Key``) are joined; those of others are never held back. All that is open can be written down and
taken up again, so an entry that is half read survives a restart. What is open is bounded: when there is too much of it
the oldest is let go as it is. Times are the journal's, in microseconds since 1970.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from helmd.model.logs.entry import MESSAGE_LIMIT

Key = tuple[str, int, str]
"""Who writes: service, pid, stream."""

T = TypeVar("T")

MOST_LINES = 2_000
MOST_OPEN = 256
MOST_BYTES = 8 * MESSAGE_LIMIT
"""What all open entries may hold; they are stored with the position of every batch."""

_PYTHON, _PYTHON_ENDED, _PYTHON_CHAINED, _JAVA, _OTHER = "python", "python-ended", "python-chained", "java", "other"
"""What an open entry waits for: frames; what may follow the exception; the next traceback; stack lines; anything."""
_IN_THE_MIDDLE = frozenset({_PYTHON, _PYTHON_CHAINED})
"""More is to come for certain, if its writer lives."""

_STARTS = (
    "Traceback (most recent call last):",
    "  + Exception Group Traceback",
    "Exception in thread ",
    "Exception ignored in",
)
_PYTHON_START = re.compile(r"\s*(?:\+ Exception Group )?Traceback \(most recent call last\):")
_JAVA_HEADS = ("java.", "javax.", "jakarta.", "org.", "com.", "io.", "net.", "dev.")
_JAVA_HEAD = re.compile(r"(?:[a-z_][\w$]*\.)+(?:[A-Z][\w$.]*)?(?:Exception|Error|Throwable)\b")
_JAVA_MORE = re.compile(
    r"\s+at [\w.$<>/@ -]+\(|\s*\.\.\. \d+ (?:more|common frames omitted)|\s*(?:Caused by|Suppressed): "
)
_PYTHON_END = re.compile(
    r"(?!(?:DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\b)"
    r"(?:[A-Za-z_][\w.]{0,300}\.\w{1,300}|[A-Z_]\w{0,300})(?:: |:?\Z)"
)
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_BELOW = ("[SQL: ", "[parameters: ", "(Background on this error at: ", "DETAIL:  ", "HINT:  ", "CONTEXT:  ", "LINE ")
"""What SQLAlchemy and psycopg put below their messages."""
_POSTGRESQL_MORE = re.compile(
    r"(?:[\d:. -]{19,27}[A-Z+0-9-]{1,6} )?\[\d+(?:-\d+)?\] (?:[^\s@]{0,100}@\S{0,100} )?"
    r"(?:DETAIL|HINT|STATEMENT|CONTEXT|QUERY|LOCATION):  "
)
_UNFINISHED = frozenset({"line-max", "nul"})
"""The other reasons, ``eof`` and ``pid-change``, end a line: nothing of the same writer can follow."""
_ERRORS = frozenset({"ERROR", "CRITICAL"})


class Whole(NamedTuple, Generic[T]):
    """A line that was split: its bytes and what its first part brought along."""

    raw: bytes
    payload: T
    parts: int
    continues: bool
    """The line is longer than MESSAGE_LIMIT; what follows comes as a line of its own."""


class Joined(NamedTuple, Generic[T]):
    """An entry with all its lines: what its first line brought along, and the others."""

    payload: T
    more: str
    """What follows the first line's text, from the line break on."""
    lines: int
    traceback: bool
    """There is one in it: the level is at least ERROR."""


@dataclass(slots=True)
class _Open(Generic[T]):
    payload: T
    state: str
    size: int
    touched: int
    lines: list[str] = field(default_factory=list)
    traceback: bool = False

    def joined(self) -> Joined[T]:
        more = "".join(f"\n{line}" for line in self.lines)
        return Joined(self.payload, more, 1 + len(self.lines), self.traceback)


@dataclass(slots=True)
class _Split(Generic[T]):
    payload: T
    size: int
    touched: int
    parts: list[bytes]
    before: int = 0
    """Parts that were put together when the joiner was written down."""

    def whole(self, continues: bool = False) -> Whole[T]:
        return Whole(b"".join(self.parts), self.payload, self.before + len(self.parts), continues)


class Joiner(Generic[T]):
    """For each line in turn: `part` if journald split it or its writer is in ``splits``; then `add`; and `push` if that
    was False.
    """

    def __init__(self) -> None:
        self.opened: dict[Key, _Open[T]] = {}
        self.splits: dict[Key, _Split[T]] = {}
        """To be looked at only: whose entries wait for lines, and whose lines for parts."""
        self._open_bytes = 0
        self._split_bytes = 0

    def part(self, key: Key, raw: bytes, line_break: str, payload: T, realtime: int) -> list[Whole[T]]:
        """A part of a line, LINE_BREAK being its ``_LINE_BREAK`` (systemd.journal-fields(7)), "" for the last one.

        Bytes, since journald splits within characters. Gives the lines that are whole by now, in order.
        """
        done: list[Whole[T]] = []
        if line_break == "nul":
            raw += b"\0"
        split = self.splits.get(key)
        if split is not None and split.size + len(raw) > MESSAGE_LIMIT:
            done.append(self._end_split(key).whole(continues=True))
            split = None
        unfinished = line_break in _UNFINISHED
        if split is None:
            if not unfinished:
                return [*done, Whole(raw, payload, 1, False)]
            self.splits[key] = split = _Split(payload, 0, realtime, [])
        split.parts.append(raw)
        split.size += len(raw)
        split.touched = realtime
        self._split_bytes += len(raw)
        if not unfinished:
            done.append(self._end_split(key).whole())
        while len(self.splits) > MOST_OPEN or self._split_bytes > MOST_BYTES:
            done.append(self._end_split(next(iter(self.splits))).whole(continues=True))
        return done

    def _end_split(self, key: Key) -> _Split[T]:
        split = self.splits.pop(key)
        self._split_bytes -= split.size
        return split

    def add(self, key: Key, text: str, realtime: int) -> bool:
        """Puts TEXT to the open entry of KEY if it belongs there; False when it is a line for `push`."""
        entry = self.opened.get(key)
        if entry is None:
            return False
        state = _continues(entry.state, text)
        size = _bytes(text) + 1
        if state is None or entry.size + size > MESSAGE_LIMIT or len(entry.lines) + 1 >= MOST_LINES:
            return False
        if self._open_bytes + size > MOST_BYTES:
            return False
        entry.traceback = entry.traceback or state != _OTHER
        entry.state = state
        entry.lines.append(text)
        entry.size += size
        entry.touched = realtime
        self._open_bytes += size
        return True

    def push(
        self, key: Key, text: str, level: str, payload: T, realtime: int, complete: bool = False
    ) -> list[Joined[T]]:
        """A line that begins an entry: gives the entries that are finished by it, in order, it itself among them if
        nothing can follow it (COMPLETE, or no error).
        """
        state = _opens(text, level, complete)
        traceback = state in (_PYTHON, _PYTHON_ENDED)
        done: list[Joined[T]] = []
        if key in self.opened:
            before = self._end(key)
            done.append(before.joined())
            # What does not fit into an entry any more goes on in a second one.
            if (goes_on := _continues(before.state, text)) is not None:
                state, traceback = goes_on, before.traceback
        if state is None:
            done.append(Joined(payload, "", 1, False))
            return done
        size = _bytes(text)
        self.opened[key] = _Open(payload, state, size, realtime, traceback=traceback)
        self._open_bytes += size
        while len(self.opened) > MOST_OPEN or self._open_bytes > MOST_BYTES:
            done.append(self._end(next(iter(self.opened))).joined())
        return done

    def _end(self, key: Key) -> _Open[T]:
        entry = self.opened.pop(key)
        self._open_bytes -= entry.size
        return entry

    def expire_parts(self, before: int) -> list[Whole[T]]:
        """Lines of which no part came since BEFORE, as far as they came; they are still to be added or pushed."""
        old = [key for key, split in self.splits.items() if split.touched < before]
        return [self._end_split(key).whole(continues=True) for key in old]

    def expire(self, before: int, in_the_middle: int | None = None) -> list[Joined[T]]:
        """Entries to which no line came since BEFORE; with IN_THE_MIDDLE, since then where more is certain to come."""
        deadline = before if in_the_middle is None else in_the_middle
        old = [
            key
            for key, entry in self.opened.items()
            if entry.touched < (deadline if entry.state in _IN_THE_MIDDLE else before)
        ]
        return [self._end(key).joined() for key in old]

    def __len__(self) -> int:
        """How much is open."""
        return len(self.opened) + len(self.splits)

    def dump(self, encode: Callable[[T], Any]) -> dict[str, Any]:
        """All that is open now, as JSON can hold it; ENCODE turns a payload into that."""
        return {
            "open": [
                [list(key), encode(e.payload), e.state, e.size, e.touched, list(e.lines), e.traceback]
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
        """The joiner that `dump` wrote down. Raises ValueError for what it did not write."""
        joiner = cls()
        try:
            for key, payload, name, size, touched, lines, traceback in state["open"]:
                joiner.opened[_key(key)] = _Open(decode(payload), name, size, touched, list(lines), traceback)
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


def opens(text: str, level: str) -> bool:
    """Whether an entry that begins with TEXT, and whose format allows more, waits for more lines.

    One that does not need not be pushed unless its writer has one open.
    """
    return level in _ERRORS or _opens(text, level, False) is not None


def _opens(text: str, level: str, complete: bool) -> str | None:
    """The state in which an entry that begins with TEXT waits for more; None when there can be none."""
    if complete:
        return None
    if text.startswith(_STARTS):
        return _begun(text) if _PYTHON_START.match(text) else _OTHER
    if text.startswith(_JAVA_HEADS) and _JAVA_HEAD.match(text):
        return _JAVA
    return _OTHER if level in _ERRORS else None


def _begun(start: str) -> str:
    """The state after a traceback's first line. A group's exceptions are all indented, none comes at its end."""
    return _PYTHON_ENDED if "Group" in start else _PYTHON


def _continues(state: str, text: str) -> str | None:
    """The state after TEXT, when it goes on an entry in STATE; None when it doesn't."""
    if _PYTHON_START.match(text):
        return _begun(text) if state in (_OTHER, _PYTHON_CHAINED) else None
    if text[:1] in (" ", "\t"):
        if text.startswith(" * "):
            return None  # " * Running on http://…" belongs to no entry
        return _JAVA if state == _OTHER and _JAVA_MORE.match(text) else state
    if not text:
        return state
    if state == _PYTHON:
        return _PYTHON_ENDED if _PYTHON_END.match(text) else None
    if state == _PYTHON_ENDED and text.startswith(_CHAINED):
        return _PYTHON_CHAINED
    if state == _PYTHON_ENDED:
        return state if text.startswith(_BELOW) else None
    if state == _JAVA:
        return state if _JAVA_MORE.match(text) else None
    if state == _OTHER and (_JAVA_HEAD.match(text) or _JAVA_MORE.match(text)):
        return _JAVA
    return state if state == _OTHER and _POSTGRESQL_MORE.match(text) else None
