"""A temporary cluster, into which a backup is restored for verification."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from helmd.postgres.binaries import Binaries, binaries_of, major_of
from helmd.postgres.cluster import account_name, cluster_lock, initialise, run_program, running
from helmd.postgres.configuration import ADMIN_FILE, Cluster

_PORT = 5432
_LONGEST_DIRECTORY = 90
"""Maximum length of a socket's directory in bytes (unix(7): 107 with its name)."""
_SETTINGS = """\
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
shared_buffers = 64MB
maintenance_work_mem = 64MB
max_wal_size = 256MB
max_connections = 10
log_min_duration_statement = -1
"""
"""No durability is needed, and little memory may be used."""
STARTING_BYTES = 400 << 20
"""Size of an empty cluster, write-ahead log included."""


@contextmanager
def scratch_cluster(directory: Path, binaries: Binaries) -> Iterator[Cluster]:
    """Yield a running, empty cluster in DIRECTORY, for this account alone.

    Leftovers of a killed run are removed first. Raises ClusterError, and LockedError while another process uses it.
    """
    with cluster_lock(directory) as lock:
        remove_scratch(directory)
        with ExitStack() as stack:
            socket = directory
            if len(bytes(directory)) > _LONGEST_DIRECTORY:
                socket = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")))
            cluster = Cluster(directory, socket, _PORT, account_name(), max_connections=10)
            directory.mkdir(mode=0o700, parents=True)
            try:
                initialise(cluster, directory, binaries, lock, checksums=False)
                (directory / ADMIN_FILE).write_text(_SETTINGS)
                _control(directory, binaries, "start", "-t", "60", "-l", str(directory / "server.log"))
                yield cluster
            finally:
                remove_scratch(directory)


def remove_scratch(directory: Path) -> None:
    """Stop the cluster in DIRECTORY if it runs, and remove it."""
    made = directory.is_dir() and major_of(directory) is not None
    if made and running(Cluster(directory, directory, 0, "")) is not None:
        _control(directory, binaries_of(directory), "stop", "-m", "immediate")
    shutil.rmtree(directory, ignore_errors=True)


def _control(directory: Path, binaries: Binaries, verb: str, *options: str) -> None:
    words = [str(binaries.program("pg_ctl")), verb, "-w", "-D", str(directory), *options]
    # Not the lock: a server that survives a killed backup would hold it against the run that has to stop it.
    with open(os.devnull, "rb") as nothing:
        what = f"pg_ctl {verb} of a cluster for the check of a backup"
        run_program(words, nothing.fileno(), directory.parent, what)
