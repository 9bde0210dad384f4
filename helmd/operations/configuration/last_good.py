"""The newest configuration without a fault, kept for a helmd that starts while the files have one.

Without it helmd would start on the defaults, on another port and another store, or not at all; then the limit on how
often its sockets may trigger it would make these fail as well (systemd.socket(5), TriggerLimitBurst=).
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


def keep(layout: Layout, sources: Sources) -> None:
    """Keeps SOURCES, which have no fault; mode 0600, since settings may hold a database's password.

    A file system that can't be written is only logged: helmd works without it.
    """
    text = json.dumps(asdict(sources))
    try:
        if _read(layout) != text:
            layout.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(_path(layout), text, 0o600)
    except OSError as problem:
        # Imported when needed, as all that helmctl can do without.
        import logging

        logging.getLogger(__name__).warning("%s can't be written: %s", _path(layout), problem.strerror)


def kept(layout: Layout) -> Sources | None:
    """What was kept last, or None."""
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
