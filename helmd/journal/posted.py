"""Posted entries written to the journal while the store is away; from there they reach it like any line.

`helmd.model.ingest.journal_codec` says as which fields, and reads them back.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from helmd.journal.reader import JournalError
from helmd.model.ingest.journal_codec import PostedRow, fields_of

SOCKET = Path("/run/systemd/journal/socket")
"""Where journald takes entries (systemd-journald.service(8)). libsystemd has this very path."""


def write(posted: Iterable[PostedRow]) -> None:
    """Hands the rows to journald, one entry each. Blocks while journald is behind. Raises JournalError."""
    # Not systemd.journal, whose import takes 24 ms.
    from systemd._journal import sendv

    try:
        for row in posted:
            sendv(*fields_of(row))
        # sd_journal_sendv(3) passes in silence over a journal that is not there.
        if not SOCKET.exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        raise JournalError(f"the journal can't be written: {error.strerror}") from error
