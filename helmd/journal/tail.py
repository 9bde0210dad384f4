"""Journal entries that are not in the store yet."""

from systemd import _reader

from helmd.model.logs.parsing.journal_fields import JournalEntry, row_of

_LOOKED_AT = 500
"""Maximum number of the account's entries that are searched for one of the suite."""


def first_after(uid: int, boot_id: str, realtime: int) -> int | None:
    """Return when (microseconds since 1970) the first entry of the suite after REALTIME was written in this boot, or
    None.

    Raises OSError when the journal can't be read. Takes a few milliseconds.
    """
    journal = _reader._Reader(_reader.LOCAL_ONLY)
    try:
        journal.add_match(f"_UID={uid}")
        journal.add_match(f"_BOOT_ID={boot_id}")
        journal.seek_realtime(realtime + 1)
        for _ in range(_LOOKED_AT):
            if not journal._next():
                break
            try:
                when: int = journal._get_realtime()
                fields = journal._get_all()
            except (OSError, ValueError):  # damaged; ValueError: in the name of a field
                continue
            if when > realtime and row_of(JournalEntry(fields, "", boot_id, 0, when)) is not None:
                return when
        return None
    finally:
        journal.close()
