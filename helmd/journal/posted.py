"""Posted entries written to the journal while the store is unavailable; helmd-journal stores them from there.

`helmd.model.ingest.journal_codec` defines their fields and reads them.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from helmd.journal.keys import JournalKeys
from helmd.journal.reader import JournalError
from helmd.model.ingest.journal_codec import fields_of
from helmd.model.ingest.own_entries import PostedRow

SOCKET = Path("/run/systemd/journal/socket")
"""The socket of journald for native entries (systemd-journald.service(8)), as in libsystemd."""


def write(keys: JournalKeys, posted: Iterable[PostedRow]) -> None:
    """Send the rows to journald, one signed entry each. Blocks while journald is behind. Raises JournalError."""
    # Not systemd.journal, whose import takes 24 ms.
    from systemd._journal import sendv

    try:
        for row in posted:
            sendv(*keys.sign(fields_of(row)))
        # sd_journal_sendv(3) succeeds even if journald's socket does not exist.
        if not SOCKET.exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        raise JournalError(f"the journal can't be written: {error.strerror}") from error
