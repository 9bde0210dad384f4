"""The last configuration without faults, saved for a helmd that is started while the files have some.

Without it helmd would use the defaults, with another port and another store, or would not start at all; then its socket
units would fail as well, by their trigger limit (systemd.socket(5), TriggerLimitBurst=).
"""

import json
from dataclasses import asdict
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.layout import Layout
from helmd.operations.configuration.load import Sources


def _path(layout: Layout) -> Path:
    return layout.state / "last-good.json"


def save_last_good(layout: Layout, sources: Sources) -> None:
    """Save SOURCES, which have no faults, with mode 0600, since settings may contain a database's password.

    An OSError is only logged: helmd works without this file.
    """
    text = json.dumps(asdict(sources))
    try:
        if _read(layout) != text:
            layout.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(_path(layout), text, 0o600)
    except OSError as problem:
        # Imported here, since helmctl seldom needs it.
        import logging

        logging.getLogger(__name__).warning("%s can't be written: %s", _path(layout), problem.strerror)


def read_last_good(layout: Layout) -> Sources | None:
    """Return the sources saved last; None if there are none or they can't be read."""
    try:
        found = json.loads(_read(layout))
        return Sources(**{name: tuple(ConfigSource(**each) for each in found[name]) for name in Sources.__slots__})
    except (ValueError, KeyError, TypeError):
        return None


def _read(layout: Layout) -> str:
    try:
        return _path(layout).read_text()
    except (OSError, UnicodeDecodeError):
        return ""
