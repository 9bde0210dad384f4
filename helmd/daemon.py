"""The daemons' composition root: builds everything from the environment and the settings, and runs it under systemd.

``python3 -m helmd.daemon journal`` is helmd-journal.service: the journal into the store, and nothing else.
``python3 -m helmd.daemon helmd`` is helmd.service: watches the suite and serves the API.
``python3 -m helmd.daemon install-sockets`` is run by an upgrade of the package: installs the units of helmd's sockets.
"""

import asyncio
import gc
import logging
import os
import pwd
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from systemd import daemon, id128

from helmd.journal.damage import truncated_files
from helmd.journal.keys import JournalKeys
from helmd.journal.reader import JournalReader
from helmd.lifecycle import Lifecycle, log_to_stderr, watchdog_seconds
from helmd.model.errors import ConfigurationError, HelmError
from helmd.model.ingest.own_entries import OwnEntries
from helmd.model.layout import Layout, layout
from helmd.model.suite.names import HTTP_SOCKET, UNIX_SOCKET
from helmd.operations.configuration.current import Current
from helmd.operations.configuration.load import load_formats, load_settings
from helmd.operations.logs.disk import LowDisk
from helmd.operations.logs.ingest import Account, Ingest
from helmd.store.ingest.journal import JournalStore
from helmd.store.maintenance.migrate import migrate
from helmd.store.session import role_of

_log = logging.getLogger("helmd")

DAEMON_USAGE = "usage: python3 -m helmd.daemon helmd | journal | install-sockets"
EX_CONFIG = 78
"""Exit status (sysexits.h) for faulty settings: trying again would not help."""


def this_layout(environment: Mapping[str, str]) -> Layout:
    """Return the layout of the account that this process runs as.

    The package's files lie where this module was found.
    """
    uid = os.getuid()
    home = environment.get("HOME") or pwd.getpwuid(uid).pw_dir
    return layout(environment, Path(home), uid, Path(__file__).resolve().parents[1])


def this_account() -> Account:
    """Return whose journal is read: this account's, on this machine, in this boot."""
    return Account(os.getuid(), id128.get_machine().hex, id128.get_boot().hex, socket.gethostname())


def activated_sockets() -> tuple[tuple[socket.socket, ...], tuple[socket.socket, ...]]:
    """Return the unix sockets and the TCP sockets that systemd made for this process (sd_listen_fds_with_names(3))."""
    unix, tcp = [], []
    for descriptor, name in sorted(daemon.listen_fds_with_names().items()):
        given = socket.socket(fileno=descriptor)
        if name == UNIX_SOCKET and given.family == socket.AF_UNIX:
            unix.append(given)
        elif name == HTTP_SOCKET and given.family in (socket.AF_INET, socket.AF_INET6):
            tcp.append(given)
        else:
            _log.warning("a socket called %s was handed over, and closed: it is not one of helmd's", name)
            given.close()
    return tuple(unix), tuple(tcp)


def schema_up_to_date(store: str, owner: str) -> Callable[[], Awaitable[None]]:
    """Return what brings the store's schema up to date as OWNER and grants to the role of STORE (both conninfo
    strings).
    """

    async def prepare() -> None:
        for step in await migrate(owner, role_of(store)):
            _log.info("the log store's schema was upgraded to %s", step)

    return prepare


async def run_journal(lifecycle: Lifecycle, account: Account, current: Current) -> None:
    """Run helmd-journal until it is stopped.

    It is ready at once, even without PostgreSQL: the journal is the buffer, and the status says what is missing.
    """
    settings, formats, places = current.settings, current.formats, current.layout
    assert formats is not None
    store, owner = settings.store_conninfo(places), settings.store_conninfo(places, owner=True)
    own = OwnEntries(JournalKeys(places.journal_keys).keys, current.retention_of)
    low = LowDisk(places.store_cluster, lambda total: current.settings.min_free(total))

    async def reload() -> None:
        try:
            current.load()
        finally:
            current.log_faults()
        # Entries in progress and open batches depend on these; systemd restarts the process.
        if (current.settings.store, current.formats) != (settings.store, formats) or ingest.disabled:
            _log.info("the log store or the formats have changed; restarting")
            os.kill(os.getpid(), signal.SIGTERM)

    def full() -> str:
        wanted = current.settings
        bounds = f"{wanted.min_free_percent} % and {wanted.min_free_size / (1 << 30):.3g} GiB"
        why = f"less than {bounds} of the log store's disk is free (logs.min_free_percent, logs.min_free_size)"
        return why if low() else ""

    ingest = Ingest(
        account,
        lambda: JournalReader(account.uid, account.boot_id),
        lambda: JournalStore.open(store, account.machine_id, account.uid, current.retention_of),
        formats,
        prepare=schema_up_to_date(store, owner),
        beat=lifecycle.beat,
        set_status=lifecycle.status,
        own=own.read,
        health_paths=current.health_paths_of,
        full=full,
        damaged=lambda: list(truncated_files()),
    )
    lifecycle.ready("opening the log store")
    await lifecycle.run(ingest.run(), reload)


def main(arguments: Sequence[str]) -> int:
    """Run the daemon that the first argument names; the exit status is returned."""
    log_to_stderr(os.environ)
    # It logs every attempt to connect; the users of the store log once that it is unavailable.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    if list(arguments) not in (["helmd"], ["journal"], ["install-sockets"]):
        print(DAEMON_USAGE, file=sys.stderr)
        return 2
    lifecycle = Lifecycle(daemon.notify, watchdog_seconds(os.environ, os.getpid()))
    places = this_layout(os.environ)
    if arguments[0] == "install-sockets":
        return _install_sockets(places)
    if arguments[0] == "helmd":
        # Imported here: the web server, which helmd-journal never uses, would take a third of its memory.
        from helmd.serve import run_helmd
        from helmd.web.server import Activated

        # A call to a manager that hangs blocks everything else for this long (read by sd-bus).
        os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "300ms")
        return _run(run_helmd(lifecycle, places, this_account(), schema_up_to_date, Activated(*activated_sockets())))
    try:
        # With wrong settings it would store wrong entries; until they are corrected, the journal keeps the lines.
        load_settings(places)
        load_formats(places)
    except ConfigurationError as error:
        for fault in error.faults:
            _log.error("%s", fault)
        return EX_CONFIG
    current = Current(places)
    current.load_at_start()
    for fault in current.faults:
        _log.warning("%s; until this is corrected, logs.retention applies to entries of all services", fault)
    # Rows have no reference cycles; searching for them takes 5 % of the time under load.
    gc.set_threshold(100_000, 50, 100)
    asyncio.run(run_journal(lifecycle, this_account(), current))
    return 0


def _install_sockets(places: Layout) -> int:
    """Print the socket units that are new or changed, one a line."""
    # Imported here, as in `main`: the daemons would never use the templates of units.
    from helmd.operations.configuration.sockets import install_sockets
    from helmd.systemd.bus import Manager

    try:
        for unit in install_sockets(places, Manager()):
            print(unit)
    except (HelmError, OSError) as error:
        _log.error("%s", error)
        return 1
    return 0


def _run(work: Coroutine[Any, Any, None]) -> int:
    """Run WORK. A HelmError is logged as a sentence without a traceback; the exit status is then 1."""
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
