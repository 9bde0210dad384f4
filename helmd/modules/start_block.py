"""Prevents a module from being started between two versions, by systemd, at boot, or by a user.

It is a file that the ``ExecStartPre=`` of its unit checks (`helmd.systemd.prestart`).
"""

from helmd.files.durable import write_atomically
from helmd.model.layout import Layout, ModulePlaces
from helmd.model.suite.names import fault_in_name

_LONGEST = 4000


def block_start(places: ModulePlaces, why: str) -> None:
    """Block starts of the module. WHY are sentences that its unit prints. Raises OSError."""
    write_atomically(places.start_block, f"{why}\n", 0o600)


def why_blocked(layout: Layout, name: str) -> str:
    """Return why the service NAME is not started now, as sentences with the command and without full stop at the end;
    empty if it may be, or NAME is not a module.
    """
    if fault_in_name(name):
        return ""
    places = layout.module(name)
    try:
        with places.start_block.open(encoding="utf-8", errors="replace") as opened:
            said = opened.read(_LONGEST).strip().removesuffix(".")
        return said or f"{places.start_block} keeps it from being started"
    except FileNotFoundError:
        return ""
    except OSError as problem:
        return f"{places.start_block} can't be read: {problem.strerror}"


def allow_start(places: ModulePlaces) -> None:
    """Allow starts again. Raises OSError."""
    places.start_block.unlink(missing_ok=True)
