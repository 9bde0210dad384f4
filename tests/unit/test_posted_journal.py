"""Handing posted entries to journald."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from helmd.journal import posted
from helmd.journal.reader import JournalError
from helmd.model.ingest.journal_codec import PostedRow, fields_of, posted_row
from helmd.model.logs.entry import HTTP, LogRow


def test_a_journal_that_is_not_there_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posted, "SOCKET", tmp_path / "socket")
    with pytest.raises(JournalError, match="can't be written: No such file"):
        posted.write([])
    (tmp_path / "socket").touch()
    posted.write([])


@pytest.mark.parametrize(
    ("unit", "believed"), [(b"helmd.service", True), (None, True), (b"hivematrix-core.service", False)], ids=str
)
def test_whose_word_is_taken(unit: bytes | None, believed: bool) -> None:
    """journald knows no unit of a helmd that was killed before it looked."""
    row = LogRow(datetime(2026, 1, 2, tzinfo=UTC), "codex", "ERROR", "a message", source=HTTP)
    posted_as = PostedRow(row, "0" * 8 + "-0000-0000-0000-" + "0" * 12, "key", 3)
    fields = {name.decode(): value for name, _, value in (field.partition(b"=") for field in fields_of(posted_as))}
    found = posted_row(fields if unit is None else {**fields, "_SYSTEMD_USER_UNIT": unit})
    assert found == (posted_as if believed else None)
