"""The intent file of a module: lines, each flushed to disk, that are read after an interruption."""

import errno
import os
import time
from pathlib import Path

from helmd.files.durable import fsync_directory
from helmd.model.errors import HelmError
from helmd.model.layout import Layout, ModulePlaces
from helmd.model.modules.intent import (
    MAX_INTENT,
    Facts,
    Intent,
    IntentError,
    IntentEvent,
    IntentLine,
    ModuleChange,
    advanced,
    intent_line,
    intent_lines,
    intent_of,
)
from helmd.model.suite.names import fault_in_name

INTENT_FILE = "intent.ndjson"


class IntentLog:
    """The lines of one change. Writing requires the module's lock."""

    def __init__(self, file: Path, intent: Intent) -> None:
        self.file = file
        self.intent = intent

    @classmethod
    def begun(cls, directory: Path, change: ModuleChange, module: str, before: str, facts: Facts) -> "IntentLog":
        """Begin a change, replacing the file. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = IntentLine(time.time(), "begin", facts={**facts, "change": change, "module": module, "before": before})
        file = directory / INTENT_FILE
        # Not in place: an incomplete first line would make the old lines invalid.
        temporary = directory / f".{INTENT_FILE}.new"
        _append(temporary, intent_line(line), os.O_TRUNC)
        os.rename(temporary, file)
        fsync_directory(directory)
        begun = intent_of([line])
        if begun is None:
            raise IntentError("no change was begun")
        return cls(file, begun)

    @staticmethod
    def read(directory: Path) -> Intent | None:
        """Return the last change that was begun, or None if there was none. Of a change in progress, the lines so far.

        Nothing is written, so the module needs not be locked. Raises IntentError, OSError.
        """
        try:
            descriptor = os.open(directory / INTENT_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as opened:
            return intent_of(intent_lines(opened.read(MAX_INTENT))[0])

    @classmethod
    def found(cls, directory: Path) -> "IntentLog | None":
        """Return the last change that was begun, without a torn line, or None if there was none.

        Raises IntentError, whose hint names the file, and OSError.
        """
        file = directory / INTENT_FILE
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "r+b") as opened:
            data = opened.read(MAX_INTENT + 1)
            try:
                if len(data) > MAX_INTENT:
                    raise IntentError("its intent file is too large")
                lines, good = intent_lines(data)
                intent = intent_of(lines)
            except IntentError as error:
                raise IntentError(
                    error.sentence, hint=f"Look at {file}, and at the module; then remove the file."
                ) from None
            if good < len(data):
                opened.truncate(good)
                os.fsync(opened.fileno())
        return cls(file, intent) if intent is not None else None

    def write(self, event: IntentEvent, step: str = "", **facts: str | float | bool | None) -> None:
        """Append a line and flush it to disk. Raises OSError."""
        line = IntentLine(time.time(), event, step, facts)
        after = advanced(self.intent, line)
        _append(self.file, intent_line(line))
        self.intent = after

    def note(self, event: IntentEvent, step: str = "", **facts: str | float | bool | None) -> None:
        """As `write`, for lines that may be missing: on a full disk, the rollback continues without them."""
        try:
            self.write(event, step, **facts)
        except OSError:
            self.intent = advanced(self.intent, IntentLine(time.time(), event, step, facts))


def interrupted_modules(layout: Layout) -> list[str]:
    """Return the modules with a change that is neither complete nor rolled back. One in progress is among them."""
    try:
        names = sorted(os.listdir(layout.state / "modules"))
    except FileNotFoundError:
        return []
    return [name for name in names if not fault_in_name(name) and is_interrupted(layout.module(name))]


def is_interrupted(places: ModulePlaces) -> bool:
    """Return whether a module has a change that is neither complete nor rolled back, or can't be read, or must not
    start.
    """
    try:
        found = IntentLog.read(places.state)
    except (HelmError, OSError):
        return True
    return (found is not None and found.direction != "nothing") or places.start_block.exists()


def _append(file: Path, data: bytes, flags: int = 0) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        if os.write(descriptor, data) != len(data):
            # The disk is full: a line after an incomplete one would be invalid.
            os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
