"""The check at the end of set-up: a line is written to the journal, and must arrive in the log store."""

import asyncio
import os
import time

from helmd.journal.actions import record
from helmd.journal.keys import JournalKeys
from helmd.journal.lines import unreadable
from helmd.model.errors import NotSetUpError, StoreError
from helmd.model.layout import Layout
from helmd.model.suite.names import JOURNAL_UNIT
from helmd.model.units.unit_state import waiting_for
from helmd.store.session import connect
from helmd.systemd.bus import Manager
from helmd.systemd.user_manager import JOURNAL_GROUP, unit_name

_SECONDS = 60.0
"""Time limit in seconds, enough to read a journal of millions of entries; that of a new account is read immediately."""
_PAUSE = 0.2
_STORED = (
    "SELECT EXISTS (SELECT FROM log_entries WHERE source = 'helm' AND timestamp > to_timestamp(%s) AND message LIKE %s)"
)


def check_end_to_end(layout: Layout, conninfo: str, manager: Manager, account: str) -> None:
    """Write a line and wait for it. Raises NotSetUpError with the reason for which it is not stored."""
    began, mark = time.time(), os.urandom(8).hex()
    record(JournalKeys(layout.journal_keys), "setup", "", "checked", f"test line {mark}", actor="helmctl")
    trouble = asyncio.run(_wait(conninfo, began, mark))
    if trouble is None:
        return
    if unreadable(layout.uid):
        raise NotSetUpError(
            f"{account} can't read its lines in the journal, so no line is stored",
            hint=f"Run: sudo usermod -aG {JOURNAL_GROUP} {account} && sudo systemctl restart {unit_name(layout.uid)}; "
            "then: helmctl setup",
        )
    reason = trouble or waiting_for(manager.facts(JOURNAL_UNIT)) or "helmd-journal has not read it yet"
    raise NotSetUpError(
        f"a line written to the journal was not in the log store after {_SECONDS:g} s: {reason}",
        hint=f"See: helmctl doctor; systemctl --user status {JOURNAL_UNIT}",
    )


async def _wait(conninfo: str, began: float, mark: str) -> str | None:
    """Return None once the line is stored; at the time limit, the store's error, or an empty text."""
    deadline, trouble = time.monotonic() + _SECONDS, ""
    while time.monotonic() < deadline:
        try:
            connection = await connect(conninfo, "helmctl setup")
            try:
                while time.monotonic() < deadline:
                    cursor = await connection.execute(_STORED, (began - 1, f"%{mark}%"))
                    row = await cursor.fetchone()
                    if row and row[0]:
                        return None
                    await asyncio.sleep(_PAUSE)
            finally:
                await connection.close()
            trouble = ""
        except StoreError as error:
            trouble = error.sentence
            await asyncio.sleep(1)
    return trouble
