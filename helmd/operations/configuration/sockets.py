"""Installs the socket units by which systemd listens for helmd, and replaces them without a gap for requests.

systemd refuses to start a socket unit whose service runs. So both are restarted together: helmd is stopped first, then
the sockets are restarted, then helmd is started with the new ones (systemd.unit(5), Before=).
"""

import time
from collections.abc import Collection

from helmd.files.durable import write_atomically
from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError
from helmd.model.layout import Layout
from helmd.model.suite.names import HELMD_UNIT
from helmd.operations.configuration.last_good import read_last_good
from helmd.operations.configuration.load import configuration_of, load_settings
from helmd.systemd.bus import Manager
from helmd.systemd.installed import is_ours, read_unit
from helmd.systemd.render import render_sockets, template_environment

_WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.05


def replace_sockets(manager: Manager, units: Collection[str]) -> None:
    """Restart the socket UNITS as they are installed now, with helmd if that runs; wait until that is done.

    A socket unit whose port is in use fails without helmd, which only wants it (Wants=) and retries.
    """
    runs = manager.facts(HELMD_UNIT).active_state in ("active", "activating", "reloading")
    if runs:
        # This also starts inactive sockets, since helmd wants them.
        manager.restart(HELMD_UNIT)
    for unit in units:
        facts = manager.facts(unit)
        if not facts.exists:
            manager.stop(unit)
        elif not runs or facts.active:
            manager.restart(unit)
    wait_for_jobs(manager, (HELMD_UNIT, *units))


def wait_for_jobs(manager: Manager, units: Collection[str]) -> None:
    """Wait until systemd has no jobs for UNITS, for at most _WAIT_SECONDS."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline and any(manager.facts(unit).job for unit in units):
        time.sleep(_POLL_SECONDS)


def install_sockets(layout: Layout, manager: Manager) -> list[str]:
    """Install and enable the socket units if this account has a suite; return those that are new or changed.

    This is for upgrades from a package whose helmd opened its sockets itself. Nothing is restarted. Instead of faulty
    settings the last good ones are used; if there are none, nothing is installed, and helmd still opens its sockets
    itself.
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
        sources = read_last_good(layout)
    try:
        return None if sources is None else configuration_of(sources).settings
    except ConfigurationError:
        return None
