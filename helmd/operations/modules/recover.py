"""Recovering modules after an interrupted change, by a kill, a crash or a power failure.

While the machine is running, the unit of `guard` does so immediately. At boot no service can be started from here,
since all wait for this: code and data are restored, and such a unit does the rest. A module for which that fails is not
started (`helmd.modules.start_block`) until the unit or a user has completed the recovery; the others are.
"""

from collections.abc import Callable
from contextlib import suppress

from helmd.files.lock import locked
from helmd.model.config.settings import Settings
from helmd.model.errors import BusError, HelmError, LockedError
from helmd.model.layout import Layout
from helmd.model.modules.intent import Intent
from helmd.modules.intent_log import IntentLog, interrupted_modules, is_interrupted
from helmd.modules.records import places_of
from helmd.modules.start_block import allow_start, block_start
from helmd.operations.lifecycle.steps import Step
from helmd.operations.modules.build import BuildOptions
from helmd.operations.modules.guard import watch_over
from helmd.operations.modules.update import ModuleUpdates
from helmd.systemd.bus import Manager


def interrupted(layout: Layout) -> list[str]:
    """Return the modules with a change that is neither complete nor rolled back. One in progress is among them."""
    return interrupted_modules(layout)


def recover_module(
    layout: Layout,
    settings: Settings,
    manager: Manager,
    name: str,
    options: BuildOptions,
    step: Callable[[Step], None],
    wait: bool = False,
) -> bool:
    """Complete or roll back what was interrupted; return whether there was something.

    A change in progress is skipped, or with WAIT waited for, since it may be another recovery. Raises HelmError,
    OSError.
    """
    if not is_interrupted(places_of(layout, name)):
        return False
    updates = ModuleUpdates(layout, settings, manager, name, options, step)
    if wait:
        with updates.locked():
            return updates.recover()
    try:
        with locked(updates.places.lock, f"{name} is being changed"):
            return updates.recover()
    except LockedError:
        options.notify(f"{name}: a change of it goes on")
        return False


def recover_at_boot(layout: Layout, settings: Settings, manager: Manager, options: BuildOptions) -> list[HelmError]:
    """Restore code and data of interrupted modules; return the errors."""
    failed = []

    def step(step: Step) -> None:
        options.notify(f"{step.service}: {step.sentence}")

    for name in interrupted(layout):
        updates = ModuleUpdates(layout, settings, manager, name, options, step)
        try:
            with locked(updates.places.lock, f"{name} is being changed"):
                error = _before_start(updates)
                if error is not None:
                    failed.append(error)
                if is_interrupted(updates.places) and _intent(updates) is not None:
                    watch_over(layout, manager, name)
        except LockedError:
            continue
        except BusError as error:
            failed.append(error)
        except OSError as problem:
            # An error of its lock; the other modules are still recovered.
            failed.append(HelmError(f"{name} could not be recovered: {problem}"))
    return failed


def _intent(updates: ModuleUpdates) -> Intent | None:
    """Return the change that was interrupted, or None if it can't be continued."""
    try:
        return IntentLog.read(updates.places.state)
    except (HelmError, OSError):
        return None


def _is_whole(updates: ModuleUpdates) -> bool:
    """Return whether code and data are of one version, although something of the change is left to be done."""
    intent = _intent(updates)
    return intent is not None and (intent.committed or "stop" not in intent.entered)


def _before_start(updates: ModuleUpdates) -> HelmError | None:
    """Recover a module that is locked, before it is started; return why it could not be.

    Then it is not started, unless what is left concerns neither its code nor its data.
    """
    name = updates.name
    try:
        # Rollback also works on a full disk, since it frees the space reserved for it.
        with suppress(OSError):
            updates.block()
        updates.recover(only_data=True)
        return None
    except HelmError as error:
        failed = error
    except OSError as problem:
        failed = HelmError(f"{name} could not be recovered: {problem}")
    hint = failed.hint or f"Once that is corrected, run: helmctl modules recover {name}"
    try:
        if _is_whole(updates):
            allow_start(updates.places)
            return failed
        block_start(updates.places, f"{name} is not started: {failed.sentence}. {hint}")
    except OSError as problem:
        updates.options.notify(f"warning: {updates.places.start_block} can't be written: {problem}")
    return failed
