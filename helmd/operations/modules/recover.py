"""Recovering modules whose change was interrupted, by a kill, a crash or a power cut.

At boot nothing can be started from here, since everything waits for this: code and data are put where they belong,
and what is left is done by the next update, or ``helmctl up``.
"""

from collections.abc import Callable

from helmd.files.lock import locked
from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError, LockedError
from helmd.model.layout import Layout
from helmd.modules.intent_log import IntentLog
from helmd.modules.records import installed_names
from helmd.operations.lifecycle.steps import Step
from helmd.operations.modules.build import BuildOptions
from helmd.operations.modules.update import ModuleUpdates
from helmd.systemd.bus import Manager


def interrupted(layout: Layout) -> list[str]:
    """The modules with a change that is neither complete nor taken back. One that goes on is among them."""
    found = []
    for name in installed_names(layout):
        try:
            log = IntentLog.found(layout.module(name).state)
        except (HelmError, OSError):
            found.append(name)
            continue
        if log is not None and log.intent.direction != "nothing":
            found.append(name)
    return found


def recover_module(
    layout: Layout, settings: Settings, manager: Manager, name: str, options: BuildOptions, step: Callable[[Step], None]
) -> bool:
    """Complete or take back what was interrupted; whether there was something. A change that goes on is left alone.

    Raises HelmError, OSError.
    """
    updates = ModuleUpdates(layout, settings, manager, name, options, step)
    try:
        with locked(updates.places.lock, f"{name} is being changed"):
            return updates.recover()
    except LockedError:
        options.notify(f"{name}: a change of it goes on")
        return False


def recover_at_boot(layout: Layout, settings: Settings, manager: Manager, options: BuildOptions) -> list[HelmError]:
    """Put code and data of interrupted modules where they belong; what could not be done."""
    failed = []

    def step(step: Step) -> None:
        options.notify(f"{step.service}: {step.sentence}")

    for name in interrupted(layout):
        updates = ModuleUpdates(layout, settings, manager, name, options, step)
        try:
            with locked(updates.places.lock, f"{name} is being changed"):
                updates.recover(only_data=True)
        except LockedError:
            continue
        except HelmError as error:
            failed.append(error)
        except OSError as problem:
            failed.append(HelmError(f"{name} could not be recovered: {problem}"))
    return failed
