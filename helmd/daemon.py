"""The daemons' composition root: builds everything from the environment and the settings, and runs it under systemd.

``python3 -m helmd.daemon journal`` is helmd-journal.service: the journal into the store, and nothing else.
``python3 -m helmd.daemon helmd`` is helmd.service: watches the suite and serves the API.
"""

import asyncio
import logging
import os
import pwd
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from systemd import daemon, id128

from helmd.journal.reader import JournalReader
from helmd.lifecycle import Lifecycle, log_to_stderr, watchdog_seconds
from helmd.model.errors import ConfigurationError, HelmError
from helmd.model.layout import Layout, layout
from helmd.operations.configuration import load_settings
from helmd.operations.ingest import Account, Ingest
from helmd.store.journal import JournalStore
from helmd.store.migrate import migrate

_log = logging.getLogger("helmd")

USAGE = "usage: python3 -m helmd.daemon helmd | journal"
EX_CONFIG = 78
"""Exit status (sysexits.h) for faulty settings: trying again would not help."""


def this_layout(environment: Mapping[str, str]) -> Layout:
    """The layout of the account that this process runs as; the package's files lie where this module was found."""
    uid = os.getuid()
    home = environment.get("HOME") or pwd.getpwuid(uid).pw_dir
    return layout(environment, Path(home), uid, Path(__file__).resolve().parents[1])


def this_account() -> Account:
    """Whose journal is read: this account's, on this machine, in this boot."""
    return Account(os.getuid(), id128.get_machine().hex, id128.get_boot().hex, socket.gethostname())


def schema_up_to_date(store: str, owner: str) -> Callable[[], Awaitable[None]]:
    """What brings the store's schema up to date as OWNER and grants to the role of STORE (both conninfo strings)."""

    async def prepare() -> None:
        for step in await migrate(owner, conninfo_to_dict(store).get("user")):
            _log.info("the store's schema was brought to %s", step)

    return prepare


async def run_journal(lifecycle: Lifecycle, account: Account, store: str, owner: str, places: Layout) -> None:
    """helmd-journal until it is told to end. STORE and OWNER are conninfo strings of the store's two roles.

    It is ready at once, PostgreSQL or not: the journal is the buffer, and its status says how things stand.
    """

    async def reload() -> None:
        # All it is configured by is where the store is. At another one it begins anew: systemd starts it again.
        if load_settings(places).store_conninfo(places) != store:
            _log.info("the log store is another one now; starting anew")
            os.kill(os.getpid(), signal.SIGTERM)

    ingest = Ingest(
        account,
        lambda: JournalReader(account.uid, account.boot_id),
        lambda: JournalStore.open(store, account.machine_id, account.uid, lambda _: 90),
        prepare=schema_up_to_date(store, owner),
        beat=lifecycle.beat,
        say=lifecycle.status,
    )
    lifecycle.ready("opening the log store")
    await lifecycle.run(ingest.run(), reload)


def main(arguments: Sequence[str]) -> int:
    """Run the daemon that the first argument names; the exit status is returned."""
    log_to_stderr(os.environ)
    # It tells of every attempt to connect; those who need the store say once that it is away.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    if list(arguments) not in (["helmd"], ["journal"]):
        print(USAGE, file=sys.stderr)
        return 2
    lifecycle = Lifecycle(daemon.notify, watchdog_seconds(os.environ, os.getpid()))
    places = this_layout(os.environ)
    if arguments[0] == "helmd":
        # Not at the top: helmd-journal would carry a web server that it never uses, a third of its memory.
        from helmd.serve import run_helmd

        # A call to a manager that hangs holds up everything else for as long (sd-bus reads this).
        os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "300ms")
        return _told(run_helmd(lifecycle, places, this_account(), schema_up_to_date))
    try:
        settings = load_settings(places)
    except ConfigurationError as error:
        for fault in error.faults:
            _log.error("%s", fault)
        return EX_CONFIG
    store, owner = settings.store_conninfo(places), settings.store_conninfo(places, owner=True)
    asyncio.run(run_journal(lifecycle, this_account(), store, owner, places))
    return 0


def _told(work: Coroutine[Any, Any, None]) -> int:
    """Runs WORK. An error that a person is meant to read ends it with a sentence and exit status 1, not a traceback."""
    status = 0
    try:
        asyncio.run(work)
    except* HelmError as group:
        status = 1
        for error in _leaves(group):
            _log.error("%s", " ".join(part for part in (f"{error}.", getattr(error, "hint", "")) if part))
    return status


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
