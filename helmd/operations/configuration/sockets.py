"""The sockets that systemd holds for helmd: installed beside a running suite, and replaced without a gap for requests.

systemd refuses to start a socket whose service runs. So both are restarted together: helmd's stop comes first, then the
sockets', and helmd starts on the new ones (systemd.unit(5), Before=).
"""

import time
from collections.abc import Collection

from helmd.files.durable import write_atomically
from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError
from helmd.model.layout import Layout
from helmd.model.suite.names import HELMD_UNIT
from helmd.operations.configuration.last_good import kept
from helmd.operations.configuration.load import configuration_of, load_settings
from helmd.systemd.bus import Manager
from helmd.systemd.installed import is_ours, read_unit
from helmd.systemd.render import render_sockets, template_environment

_WAIT_SECONDS = 30.0
_LOOK_SECONDS = 0.05


def replace_sockets(manager: Manager, units: Collection[str]) -> None:
    """Makes systemd listen as UNITS say by now, and restarts helmd on that if it runs; returns once that is done.

    A socket unit that can't listen, since its port is in use, fails by itself: helmd has Wants= for it, and tries
    again.
    """
    runs = manager.facts(HELMD_UNIT).active_state in ("active", "activating", "reloading")
    if runs:
        # Takes inactive sockets along, since helmd wants them.
        manager.restart(HELMD_UNIT)
    for unit in units:
        facts = manager.facts(unit)
        if not facts.exists:
            manager.stop(unit)
        elif not runs or facts.active:
            manager.restart(unit)
    wait_for_jobs(manager, (HELMD_UNIT, *units))


def wait_for_jobs(manager: Manager, units: Collection[str]) -> None:
    """Waits until systemd has no job for UNITS any more."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline and any(manager.facts(unit).job for unit in units):
        time.sleep(_LOOK_SECONDS)


def install_sockets(layout: Layout, manager: Manager) -> list[str]:
    """For an upgrade from a package whose helmd made its sockets itself: installs and enables their units, if this
    account has a suite. Those that are new or changed; what runs stays as it is.

    With faulty settings those of the newest faultless configuration count; without any nothing is installed, and helmd
    still listens by itself.
    """
    if not layout.config.is_dir() or (settings := _settings(layout)) is None:
        return []
    done = []
    for unit, text in render_sockets(layout, settings, template_environment(layout.share / "units")).items():
        before = read_unit(layout.unit_file(unit))
        if before != text and (before is None or is_ours(before)):
            write_atomically(layout.unit_file(unit), text)
            if before is None:
                manager.enable([unit])
            done.append(unit)
    if done:
        manager.daemon_reload()
    return done


def _settings(layout: Layout) -> Settings | None:
    try:
        return load_settings(layout)
    except ConfigurationError:
        sources = kept(layout)
    try:
        return None if sources is None else configuration_of(sources).settings
    except ConfigurationError:
        return None
