"""A journal file read without matches, by its own chain of all entries, which finds more when it is damaged."""

import os
from collections.abc import Mapping
from typing import Any

from systemd import _reader

from helmd.journal.expected import Expected
from helmd.journal.files import DamagedError
from helmd.model.logs.entry import MESSAGE_LIMIT
from helmd.model.logs.parsing.journal_fields import JournalEntry, Value

DATA_THRESHOLD = MESSAGE_LIMIT + len(b"MESSAGE=") + 1
"""One byte more of a field than is kept, so that what was cut can be seen; the default would cut at 64 KiB unseen."""
NOT_OURS = JournalEntry({}, "", "", -1, 0)


class UnfilteredFile:
    """A file that is read without matches, which libsystemd does by the file's chain of all entries."""

    def __init__(self, expected: Expected, uid: bytes, boot_id: str, after: int, up_to: int) -> None:
        self.file = expected.file
        self._counted = expected.entries is not None
        self._uid = uid
        self._boot_id = boot_id
        self._after = after
        self._up_to = up_to
        self._journal: Any = None
        self._read = self._own = 0
        self._newest, self._earlier = -1, (0, 0)
        """The time of the last entry read, and what had been read, of all and of the account, before that time."""

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def next(self) -> JournalEntry | None:
        """The next entry of the account, NOT_OURS for any other, or None at the end."""
        if self._journal is None and not self._open():
            return None
        journal = self._journal
        try:
            if not journal._next():
                return None
            fields: dict[str, Value] = journal._get_all()
            monotonic: int = journal._get_monotonic().timestamp
            realtime: int = journal._get_realtime()
            cursor: str = journal._get_cursor()
        except (OSError, ValueError):  # ValueError: damage in the name of a field
            return NOT_OURS
        if fields.get("_BOOT_ID") != self._boot_id.encode() or monotonic <= self._after or "_UID" not in fields:
            return NOT_OURS
        if monotonic > self._up_to:
            return None
        if monotonic > self._newest:
            self._newest, self._earlier = monotonic, (self._read, self._own)
        self._read += 1
        if fields["_UID"] != self._uid or ("MESSAGE" not in fields and has_lost_its_message(fields)):
            return NOT_OURS
        self._own += 1
        return JournalEntry(fields, cursor, self._boot_id, monotonic, realtime)

    def missing(self, before: int) -> int:
        """How many entries that are older than BEFORE (monotonic), and than the next one, could not be read, at most.

        Where the account's are not known by themselves, those of others are counted in.
        """
        read, own = (self._read, self._own) if before > self._newest else self._earlier
        try:
            if self._counted:
                chain = self.file.entries_with(b"_UID", self._uid)
                return max(0, chain.between(self._boot_id, self._after, min(before - 1, self._up_to)) - own)
            entries = self.file.entries()
            first = entries.behind(self._boot_id, self._after)
            last = entries.count if before > self._up_to else entries.behind(self._boot_id, before - 1)
            return max(0, last - first - read)
        except DamagedError:
            return max(0, self.file.header.n_entries - read) if before > self._up_to else 0

    def _open(self) -> bool:
        # By descriptor, since journald may have renamed it. One that is deleted libsystemd opens no more.
        descriptor = os.dup(self.file.descriptor)
        try:
            self._journal = _reader._Reader(0, None, [descriptor])
        except OSError:
            os.close(descriptor)
            return False
        self._journal.data_threshold = DATA_THRESHOLD
        return True


def has_lost_its_message(fields: Mapping[str, Value]) -> bool:
    """Whether an entry without a message had one: what is printed always has, only journald's own protocol may omit it.

    Of an entry whose fields are damaged libsystemd gives the others.
    """
    return fields.get("_TRANSPORT", b"stdout") == b"stdout"
