"""The steps of a change of a module, the rollback of each, and the sentence about how it ended."""

from dataclasses import dataclass
from typing import Literal

from helmd.model.modules.intent import Intent, ModuleChange

ChangeStep = Literal[
    "preflight", "build", "stop", "close", "copy", "snapshot", "open", "data", "record", "unit", "start", "gate"
]
AfterStep = Literal["running", "copies", "versions", "report"]
"""What is left to be done once a change is committed; each can be repeated."""
UndoStep = Literal["halt", "database", "shared", "open", "record", "unit", "start", "gate", "copies", "discard"]

FORWARD: tuple[ChangeStep, ...] = (
    "preflight",
    "build",
    "stop",
    "close",
    "copy",
    "snapshot",
    "open",
    "data",
    "record",
    "unit",
    "start",
    "gate",
)
INSTALL: tuple[ChangeStep, ...] = (
    "preflight", "build", "stop", "close", "copy", "snapshot", "open", "record", "unit", "data", "start",
)  # fmt: skip
"""Those of an installation. There is no unit before the version is recorded, and nothing to compare it with."""
AFTER: tuple[AfterStep, ...] = ("running", "copies", "versions", "report")

_WORDS = {
    "preflight": "the check beforehand",
    "build": "building it",
    "stop": "stopping the module",
    "close": "ending the sessions of its database",
    "copy": "copying its database",
    "snapshot": "copying its shared files",
    "open": "letting it into its database again",
    "data": "its migration",
    "record": "recording the version",
    "unit": "installing its unit",
    "start": "its start",
    "gate": "watching it",
}


@dataclass(frozen=True, slots=True)
class Kept:
    """Where data written to a version that was removed is kept; empty for none."""

    database: str = ""
    shared: str = ""
    rows: int | None = None
    """How many rows were inserted, changed or deleted after the start; None if PostgreSQL does not know."""
    files_changed: bool = False

    @property
    def written(self) -> bool:
        """Whether anything was written after the start, as far as that is known."""
        return bool(self.files_changed or self.rows or (self.database and self.rows is None))


def step_words(step: str) -> str:
    """Return STEP as a part of a sentence."""
    return _WORDS.get(step, step)


def change_words(change: ModuleChange) -> str:
    """Return CHANGE as a noun."""
    return change.partition("-")[0]


def steps_of(change: ModuleChange) -> tuple[ChangeStep, ...]:
    """Return the steps of CHANGE in their order. A rollback goes to a version that is there."""
    if change == "install":
        return INSTALL
    return FORWARD if change == "update" else tuple(step for step in FORWARD if step != "build")


def undo_of(intent: Intent) -> tuple[UndoStep, ...]:
    """Return the rollback steps, in order, given what has been entered.

    A step that may have begun counts as done.
    """
    entered = set(intent.entered)
    steps: list[UndoStep] = []
    if "stop" in entered:
        steps.append("halt")
    # Before that only the copies were made; the originals are unchanged.
    if "data" in entered:
        steps += ["database", "shared"]
    if "close" in entered:
        steps.append("open")
    if "record" in entered:
        steps += ["record", "unit"]
    if "stop" in entered:
        steps += ["start", "gate"]
    if "copy" in entered:
        steps.append("copies")
    if "build" in entered:
        steps.append("discard")
    return tuple(steps)


def remaining_undo(intent: Intent) -> tuple[UndoStep, ...]:
    """Return the remaining rollback steps after an interruption."""
    left = tuple(step for step in undo_of(intent) if step not in intent.undone)
    # The module may have been started meanwhile, with data that is not restored yet.
    return ("halt", *left) if left and left[0] in ("database", "shared", "open", "record", "unit") else left


def failure_sentence(intent: Intent, kept: Kept, seconds_down: float | None) -> str:
    """Return how a change ended that was rolled back, without full stop: which step and why, what holds now, what is
    kept and which command says how to read it.
    """
    what = change_words(intent.change)
    failed = step_words(intent.failed_step) if intent.failed_step else "an interruption"
    reason = f": {intent.reason}" if intent.reason else ""
    parts = [f"the {what} of {intent.module} was rolled back at {failed}{reason}"]
    if "stop" not in intent.entered:
        parts.append("nothing of it was stopped or changed")
    elif intent.before:
        down = f", after {seconds_down:.1f} s without the module" if seconds_down is not None else ""
        parts.append(f"{intent.before} is in place again, with its data{down}")
    elif intent.change == "install":
        parts.append("it is not part of the suite")
    if kept.written and (where := _where(kept)):
        parts.append(f"what was written meanwhile is kept: {where}")
    elif where := _where(kept):
        parts.append(f"its data from the attempt is kept: {where}")
    if _where(kept):
        parts.append(f"to read it: helmctl modules show {intent.module}")
    return "; ".join(parts)


def _where(kept: Kept) -> str:
    found = []
    if kept.database:
        found.append(f"the database {kept.database}")
    if kept.shared:
        found.append(kept.shared)
    return " and ".join(found)
