"""Carries out a change of a module step by step, or rolls it back; what the steps do is `Surroundings`.

Each step is recorded on disk before it begins. Any interruption (an error, a cancellation, a kill, a power failure)
leaves lines from which `recover` continues: it rolls back, or completes the change once that was committed.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from helmd.model.errors import HelmError
from helmd.model.modules.intent import Facts, Intent
from helmd.model.modules.transaction import (
    AFTER,
    AfterStep,
    ChangeStep,
    UndoStep,
    remaining_undo,
    steps_of,
)
from helmd.modules.intent_log import IntentLog

ReportChange = Callable[[str, str], None]
"""Called with a step and a description, as a sentence without full stop."""

_AFTER_DATA: frozenset[UndoStep] = frozenset({"start", "gate"})
"""Rollback steps whose failure changes nothing about data and code: both are the old ones by then."""


class RolledBackError(HelmError):
    """A change of a module failed, and was rolled back."""


class StuckError(HelmError):
    """A change of a module could neither be completed nor rolled back; a recovery will try again."""


class Surroundings(Protocol):
    """The actions of steps. Each can be repeated, since after an interruption it is unknown whether it was done."""

    def forward(self, step: ChangeStep, intent: Intent) -> Facts:
        """Do a step; return the facts that a recovery needs. Raises HelmError, OSError."""

    def after(self, step: AfterStep, intent: Intent) -> None:
        """Do a step after the commit of the change. Raises HelmError, OSError."""

    def undo(self, step: UndoStep, intent: Intent) -> Facts:
        """Do a rollback step. Raises HelmError, OSError."""

    def describe(self, intent: Intent) -> HelmError:
        """Return the error about a change that was rolled back."""


def carry_out(log: IntentLog, outside: Surroundings, report: ReportChange) -> Intent:
    """Carry out the change that LOG has begun; return its completed intent.

    Raises RolledBackError if a step failed and the change was rolled back, KeyboardInterrupt if it was interrupted and
    rolled back, and StuckError if it could be neither completed nor rolled back.
    """
    step: ChangeStep | None = None
    try:
        for step in steps_of(log.intent.change):
            log.write("enter", step)
            report(step, "begun")
            log.write("done", step, **outside.forward(step, log.intent))
        # A signal during the flush must not leave the line on disk but unknown here.
        with unsignalled():
            log.write("committed")
    except BaseException as error:
        if not log.intent.committed:
            with unsignalled():
                log.note("failed", step or "", reason=reason_of(error))
                roll_back(log, outside, report)
                if not isinstance(error, Exception):
                    raise
                raise outside.describe(log.intent) from error
    with unsignalled():
        complete(log, outside, report)
    return log.intent


def complete(log: IntentLog, outside: Surroundings, report: ReportChange) -> None:
    """Do the remaining steps of a committed change. Raises StuckError; then it is still committed."""
    for step in AFTER:
        try:
            report(step, "begun")
            outside.after(step, log.intent)
        except (HelmError, OSError) as error:
            raise StuckError(
                f"the new version of {log.intent.module} serves, but not all of the old one was removed:"
                f" {reason_of(error)}",
                hint="Run: helmctl modules recover",
            ) from error
    log.note("ended", outcome="committed")


def roll_back(log: IntentLog, outside: Surroundings, report: ReportChange, only_data: bool = False) -> None:
    """Roll back. With ONLY_DATA, code and data are restored and nothing is started; a later call does the rest.

    Raises StuckError when the data or the code can't be restored: then nothing was started on them.
    """
    for step in remaining_undo(log.intent):
        if only_data and step in _AFTER_DATA:
            return
        facts: Facts = {}
        try:
            report(step, "rolling back")
            facts = outside.undo(step, log.intent)
        except (HelmError, OSError) as error:
            if step not in _AFTER_DATA:
                raise StuckError(
                    f"{log.intent.module} can't be rolled back to {log.intent.before or 'its former state'} at {step}:"
                    f" {reason_of(error)}",
                    hint="Once that is corrected, run: helmctl modules recover",
                ) from error
            facts = {"trouble": reason_of(error)}
        log.note("back", step, **facts)
    log.note("ended", outcome="back")


def recover(log: IntentLog, outside: Surroundings, report: ReportChange, only_data: bool = False) -> bool:
    """Complete or roll back the change of LOG, if it is neither yet; return whether it was not."""
    direction = log.intent.direction
    if direction == "nothing":
        return False
    with unsignalled():
        if direction == "forward":
            complete(log, outside, report)
        else:
            if not log.intent.reason:
                log.note("failed", _interrupted_in(log.intent), reason="it was interrupted")
            roll_back(log, outside, report, only_data)
    return True


def _interrupted_in(intent: Intent) -> str:
    return intent.entered[-1] if intent.entered else ""


def reason_of(error: BaseException) -> str:
    """Return why a step failed, as a sentence without full stop."""
    if isinstance(error, HelmError):
        return error.sentence
    if isinstance(error, KeyboardInterrupt):
        return "it was cancelled"
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextmanager
def unsignalled() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP, so that a rollback is not interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            with suppress(TypeError):
                signal.signal(number, handler)
