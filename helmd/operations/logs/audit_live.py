"""Following the audit trail: Helm's signed records, as they are written to the journal."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from helmd.journal.query import Found, JournalQuery, Wanted
from helmd.model.identity.audit import AuditEntry
from helmd.model.ingest.signature import REQUEST
from helmd.model.layout import Layout
from helmd.model.logs.parsing.journal_fields import text_of
from helmd.operations.logs.audit import audit_entry

POLL_SECONDS = 1.0
"""Interval in seconds in which the journal is polled for a reader."""
_MOST_READ = 50_000
_MOST_KNOWN = 10_000

Result = TypeVar("Result")


async def follow_audit(
    places: Layout, first: int, directory: Path | None = None
) -> AsyncGenerator[tuple[AuditEntry, ...], None]:
    """Yield the newest FIRST records, newest first; then new ones, oldest first, until it is closed.

    DIRECTORY replaces the machine's directory of journal files. Raises JournalUnreadableError.
    """
    # A journal may only be used by the thread that opened it (sd-journal(3)).
    thread = ThreadPoolExecutor(1, "audit")

    async def asked(what: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(thread, what)

    known: OrderedDict[str, None] = OrderedDict()
    try:
        query = await asked(lambda: JournalQuery(places.uid, Wanted(), directory, places.journal_keys))
        try:
            yield await asked(lambda: tuple(islice(_unknown(islice(query.own_changes(), _MOST_READ), known), first)))
            while True:
                await asyncio.sleep(POLL_SECONDS)
                if found := await asked(lambda: tuple(_unknown(query.newer_changes(), known))):
                    yield found
        finally:
            thread.submit(query.__exit__)
    finally:
        thread.shutdown(wait=False)


def _unknown(found: Iterable[Found], known: OrderedDict[str, None]) -> Iterable[AuditEntry]:
    """Yield each record once: a process can copy one to the journal, signature included."""
    for entry, row in found:
        request = text_of(entry.fields, REQUEST)
        if request in known:
            continue
        known[request] = None
        if len(known) > _MOST_KNOWN:
            known.popitem(last=False)
        yield audit_entry(row)
