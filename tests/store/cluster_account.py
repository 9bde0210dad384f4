"""Acts as an account without rights, as PostgreSQL demands it, and runs its clusters as their units do.

The tests need root for that, and to act as another account that must not get in.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

# Here, since each child would import it: that takes longer than what most of them do.
import helmd.files.key_pair  # noqa: F401
from helmd.postgres.binaries import binaries_of
from helmd.postgres.cluster import create_cluster, suite_cluster
from helmd.postgres.configuration import Cluster, PasswordLogin
from tests.free_ports import free_port
from tests.waiting import WITHIN

ACCOUNT = "nobody"
FAST = ("-c", "fsync=off")
"""No test takes the power away, and what a killed server has written is there."""


def fork_as_account(work: Callable[[], None]) -> int:
    """Return the pid of a child that does WORK as the account, in a process group of its own; exit code 1 when it
    raised.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        entry = pwd.getpwnam(ACCOUNT)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        os.chdir("/")
        # libpq would look for certificates in the caller's.
        os.environ["HOME"] = entry.pw_dir
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def as_account(work: Callable[[], None]) -> None:
    """Do WORK as the account; a failed assertion there fails here, its traceback is in the captured output."""
    assert os.waitstatus_to_exitcode(os.waitpid(fork_as_account(work), 0)[1]) == 0, "see the traceback above"


@dataclass
class Server:
    """The server as its unit runs it: ``Type=notify``, ended by SIGINT."""

    cluster: Cluster
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(WITHIN)


def start(cluster: Cluster) -> Server:
    notify = cluster.directory.parent / "notify"
    notify.unlink(missing_ok=True)
    log = cluster.directory.parent / "server.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, log.open("ab") as output:
        ready.bind(str(notify))
        notify.chmod(0o777)
        ready.settimeout(WITHIN)
        process = subprocess.Popen(
            [str(binaries_of(cluster.directory).program("postgres")), "-D", str(cluster.directory), *FAST],
            user=ACCOUNT,
            group="nogroup",
            extra_groups=[],
            env={"NOTIFY_SOCKET": str(notify)},
            stdout=output,
            stderr=output,
            cwd="/",
        )
        assert b"READY=1" in ready.recv(4096)
    return Server(cluster, process, log)


def made(cluster: Cluster) -> None:
    assert create_cluster(cluster) is True


@contextmanager
def own_directory() -> Iterator[Path]:
    assert os.geteuid() == 0, "these tests act as two accounts and so need root"
    directory = Path(tempfile.mkdtemp(prefix="helm-pg-"))
    entry = pwd.getpwnam(ACCOUNT)
    (directory / "run").mkdir()
    for each in (directory, directory / "run"):
        os.chown(each, entry.pw_uid, entry.pw_gid)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def suite_like(place: Path, services: tuple[str, ...] = ("codex", "ledger", "knowledge-tree_2")) -> Cluster:
    """Return a cluster as the suite's, with a role for each of SERVICES and for Keycloak."""
    passfile, logins = place / "secrets/pgpass", [PasswordLogin(name, name) for name in services]
    return suite_cluster(place / "cluster", place / "run", free_port(), ACCOUNT, passfile, logins)


@contextmanager
def running_server(cluster: Cluster) -> Iterator[Server]:
    as_account(lambda: made(cluster))
    server = start(cluster)
    try:
        yield server
    finally:
        server.stop()


def ask(uri: str, query: str) -> Any:
    with psycopg.connect(uri, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def logs_in(uri: str) -> bool:
    try:
        psycopg.connect(uri, connect_timeout=int(WITHIN)).close()
    except psycopg.OperationalError:
        return False
    return True


def refused(uri: str) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(uri, connect_timeout=int(WITHIN))
    return str(caught.value)
