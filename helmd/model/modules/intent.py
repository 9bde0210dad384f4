"""The lines in which a change of a module is written down before it is done, and what a recovery concludes from them.

Each line is one JSON object with a checksum. A line is flushed to the disk before what it announces begins, so after a
kill or a power cut the last line may be torn, and no other one. What a torn line announced has not begun.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from helmd.model.errors import HelmError

IntentEvent = Literal["begin", "enter", "done", "failed", "back", "committed", "ended"]
"""``begin``: the change and its facts. ``enter`` and ``done``: a step. ``failed``: why it is rolled back. ``back``: a
step of the rollback is done. ``committed``: it can only be completed. ``ended``: nothing is left to be done."""

ModuleChange = Literal["install", "update", "rollback-code", "rollback-data", "remove"]
Direction = Literal["nothing", "forward", "back"]

MAX_INTENT = 1 << 20
"""Bytes of an intent file that are read; a change writes some kilobytes."""
_EVENTS = frozenset(get_args(IntentEvent))
_CHANGES = frozenset(get_args(ModuleChange))
_NAME = re.compile(r"[a-z0-9_.:-]{0,60}\Z")
_FACT = (str, int, float, bool, type(None))

Fact = str | int | float | bool | None
Facts = Mapping[str, Fact]


class IntentError(HelmError):
    """An intent file is damaged otherwise than by an incomplete last line: the state of the change is unknown."""

    code = "failed"


@dataclass(frozen=True, slots=True)
class IntentLine:
    """One line. ``at`` is seconds since the epoch."""

    at: float
    event: IntentEvent
    step: str = ""
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Intent:
    """A change of a module as its lines have it. ``before`` and ``after`` are ids of versions; empty for none."""

    change: ModuleChange
    module: str
    began_at: float
    before: str = ""
    given: Facts = field(default_factory=dict)
    """What else ``begin`` says: ref, commit, who asked, whether the module ran."""
    entered: tuple[str, ...] = ()
    done: Mapping[str, Facts] = field(default_factory=dict)
    undone: Mapping[str, Facts] = field(default_factory=dict)
    failed_step: str = ""
    reason: str = ""
    committed: bool = False
    ended: bool = False
    outcome: str = ""

    @property
    def direction(self) -> Direction:
        """Where a recovery goes: what was committed is completed, anything else is rolled back."""
        if self.ended:
            return "nothing"
        # A partly removed module is useless and can't be restored.
        if self.committed or (self.change == "remove" and "stop" in self.entered):
            return "forward"
        return "back"

    @property
    def after(self) -> str:
        """The version that it moves to; empty before there is one."""
        return str(self.done.get("build", {}).get("version") or self.given.get("after") or "")

    def fact(self, step: str, name: str) -> Fact:
        """Return what a completed step has said, or None if it has not, or is not complete."""
        return self.done.get(step, {}).get(name)


def intent_line(line: IntentLine) -> bytes:
    """Return LINE as in the file."""
    body = json.dumps(
        {"at": line.at, "event": line.event, "step": line.step, "facts": dict(line.facts)}, sort_keys=True
    )
    return f"{zlib.crc32(body.encode()):08x} {body}\n".encode()


def intent_lines(data: bytes) -> tuple[tuple[IntentLine, ...], int]:
    """Return the lines in DATA, and how many bytes they take: what follows them is a torn line.

    Raises IntentError when another line than the last one is damaged.
    """
    lines: list[IntentLine] = []
    place = 0
    while place < len(data):
        end = data.find(b"\n", place)
        line = _decoded(data[place:end]) if end >= 0 else None
        if line is None:
            # With blocks written out of order, zeros may follow that belong to the torn line.
            if end < 0 or not data[end + 1 :].strip(b"\0\n "):
                break
            raise IntentError(f"line {len(lines) + 1} of its intent file is damaged")
        lines.append(line)
        place = end + 1
    return tuple(lines), place


def _decoded(line: bytes) -> IntentLine | None:
    checksum, _, body = line.partition(b" ")
    if checksum != f"{zlib.crc32(body):08x}".encode():
        return None
    try:
        found = json.loads(body)
        at, event, step, facts = found["at"], found["event"], found["step"], found["facts"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(at, int | float) or event not in _EVENTS or not isinstance(step, str) or not _NAME.match(step):
        return None
    if not isinstance(facts, dict) or not all(isinstance(value, _FACT) for value in facts.values()):
        return None
    return IntentLine(float(at), event, step, facts)


def intent_of(lines: Iterable[IntentLine]) -> Intent | None:
    """Return the change that LINES describe, or None without any. Raises IntentError if no change writes such."""
    found: Intent | None = None
    for line in lines:
        found = _begun(line) if found is None else advanced(found, line)
    return found


def _begun(line: IntentLine) -> Intent:
    change, module = line.facts.get("change"), line.facts.get("module")
    if line.event != "begin" or change not in _CHANGES or not isinstance(module, str) or not _NAME.match(module):
        raise IntentError("its intent file does not begin with a change")
    given = {name: value for name, value in line.facts.items() if name not in ("change", "module", "before")}
    return Intent(change, module, line.at, str(line.facts.get("before") or ""), given)  # type: ignore[arg-type]


def advanced(intent: Intent, line: IntentLine) -> Intent:
    """Return INTENT after LINE. Raises IntentError for one that can't follow."""
    if intent.ended:
        raise IntentError("its intent file goes on after its end")
    match line.event:
        case "enter":
            return replace(intent, entered=(*intent.entered, line.step))
        case "done":
            return replace(intent, done={**intent.done, line.step: line.facts})
        case "failed":
            why = str(line.facts.get("reason") or "")
            # The first reason counts: what fails later is a consequence.
            return intent if intent.reason else replace(intent, failed_step=line.step, reason=why)
        case "back":
            return replace(intent, undone={**intent.undone, line.step: line.facts})
        case "committed":
            return replace(intent, committed=True)
        case "ended":
            return replace(intent, ended=True, outcome=str(line.facts.get("outcome") or ""))
        case _:
            raise IntentError("its intent file begins twice")
