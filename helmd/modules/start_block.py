"""What keeps a module from being started between two versions: by systemd, at boot, or by somebody.

A file that the start-up command of its unit looks for (`helmd.systemd.prestart`).
"""

from helmd.files.durable import write_atomically
from helmd.model.layout import ModulePlaces


def block_start(places: ModulePlaces, why: str) -> None:
    """Have the module not start, for WHY, sentences that its unit prints. Raises OSError."""
    write_atomically(places.start_block, f"{why}\n", 0o600)


def allow_start(places: ModulePlaces) -> None:
    """Let it start again. Raises OSError."""
    places.start_block.unlink(missing_ok=True)
