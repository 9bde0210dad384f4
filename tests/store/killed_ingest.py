"""``python -m tests.store.killed_ingest JOURNAL STORE OWNER POINT TIMES``: helmd-journal, which is killed at a point.

POINT is a method that must not be reached TIMES times, or ``never``.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helmd.journal.reader import JournalReader
from helmd.operations.logs import ingest
from helmd.store.ingest.journal import JournalStore
from tests.store.test_ingest_loop import Daemon


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killing(times: int, method: Callable[..., Any]) -> Callable[..., Any]:
    """METHOD, which kills this process instead when it is called for the TIMES-th time."""
    calls = 0

    def called(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == times:
            _die()
        return method(*arguments)

    return called


def _killing_after(times: int) -> Callable[..., Any]:
    append = JournalStore.append
    commits = 0

    async def appended(*arguments: Any) -> None:
        nonlocal commits
        await append(*arguments)
        commits += 1
        if commits == times:
            _die()

    return appended


async def _run(journal: Path, store: str, owner: str) -> None:
    async with Daemon(journal, store, owner).running():
        await asyncio.sleep(60)


def main(journal: str, store: str, owner: str, point: str, times: str) -> None:
    """Store the journal in small batches until killed."""
    ingest.SLICE_ENTRIES = 40
    ingest.CHUNK_ROWS = 100
    if point == "committed":
        JournalStore.append = _killing_after(int(times))  # type: ignore[method-assign]
    elif point == "append":
        JournalStore.append = _killing(int(times), JournalStore.append)  # type: ignore[method-assign]
    elif point != "never":
        setattr(JournalReader, point, _killing(int(times), getattr(JournalReader, point)))
    asyncio.run(_run(Path(journal), store, owner))


if __name__ == "__main__":
    main(*sys.argv[1:])
