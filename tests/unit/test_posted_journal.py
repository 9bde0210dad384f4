"""Sending posted entries to journald."""

from pathlib import Path

import pytest

from helmd.journal import posted
from helmd.journal.keys import JournalKeys
from helmd.journal.reader import JournalError


def test_a_journal_that_is_not_there_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = JournalKeys(tmp_path / "journal.keys")
    monkeypatch.setattr(posted, "SOCKET", tmp_path / "socket")
    with pytest.raises(JournalError, match="can't be written: No such file"):
        posted.write(keys, [])
    (tmp_path / "socket").touch()
    posted.write(keys, [])
