"""Creating a private PostgreSQL cluster, and writing its configuration files; both can be interrupted and repeated.

A cluster is initialized in a temporary directory and renamed when complete, so its data directory either does not exist
or has a working cluster.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from helmd.files.account_names import name_of_uid
from helmd.files.durable import fsync_directory, write_if_changed
from helmd.files.environment_file import new_secret
from helmd.files.lock import acquire, locked_directory
from helmd.model.errors import HelmError
from helmd.model.layout import Layout
from helmd.postgres import unlock
from helmd.postgres.binaries import INSTALLED, Binaries, binaries_of, major_of, newest
from helmd.postgres.configuration import (
    CERTIFICATE,
    HELM_FILE,
    PRIVATE_KEY,
    SUPERUSER,
    Cluster,
    Mappings,
    PasswordLogin,
    connections_needed,
    hba_file,
    helm_file,
    ident_file,
    main_file,
    mappings_in,
)
from helmd.postgres.passfile import ensure_superuser_password

if TYPE_CHECKING:
    import subprocess

STORE_PORT = 5432
STORE_ROLES = ("helm_owner", "helm")
KEYCLOAK_ROLE = "keycloak"
"""The role and the database of Keycloak, independent of the name of its service."""
_KEYCLOAK_CONNECTIONS = 40
"""Twice its pool, since connections of a Keycloak that was killed may last until the next one has opened its own."""
_VALID_FROM = datetime(2000, 1, 1, tzinfo=UTC)
_VALID_UNTIL = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""End of the validity of certificates: no expiry (RFC 5280, 4.1.2.5), since clients trust this one only, and a wrong
clock must not lock them out."""
_LOCK_WAIT = 120.0


class ClusterError(HelmError):
    """A PostgreSQL cluster could not be created, changed or reached."""

    code: ClassVar[str] = "cluster"


class PasswordNeededError(ClusterError):
    """A server requested a password that Helm does not have."""


def store_cluster(layout: Layout, account: str) -> Cluster:
    """Return the cluster of Helm's own store: reachable by the account only, over a socket that services do not see."""
    return Cluster(
        layout.store_cluster, layout.store_socket, STORE_PORT, account, peers=STORE_ROLES, max_connections=50
    )


def suite_cluster(
    directory: Path, socket: Path, port: int, account: str, passfile: Path, services: Iterable[PasswordLogin] = ()
) -> Cluster:
    """Return the suite's cluster. SERVICES are the logins over the socket; Keycloak uses TCP."""
    logins, tcp = tuple(services), (PasswordLogin(KEYCLOAK_ROLE, KEYCLOAK_ROLE, _KEYCLOAK_CONNECTIONS),)
    return Cluster(
        directory,
        socket,
        port,
        account,
        logins=logins,
        tcp=tcp,
        passfile=passfile,
        max_connections=connections_needed((*logins, *tcp)),
    )


def account_name() -> str:
    """Return the name of the account that runs this process, as peer authentication sees it."""
    return name_of_uid(os.geteuid())


def machine_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def server_environment(cluster: Cluster | None = None) -> Mapping[str, str]:
    """Return the environment for PostgreSQL's programs: this process' one without libpq's variables.

    With a CLUSTER, programs can log in to it as its superuser.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    passfile = {"PGPASSFILE": str(cluster.passfile)} if cluster and cluster.passfile else {}
    return kept | passfile | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


def create_cluster(cluster: Cluster, binaries: Binaries | None = None, root: Path = INSTALLED) -> bool:
    """Create the cluster if it does not exist, and update its configuration; return whether it was created.

    Raises ClusterError, NotSetUpError (no PostgreSQL installed) or LockedError (another process holds the lock for
    minutes).
    """
    fault = cluster.fault()
    if fault:
        raise ClusterError(f"no PostgreSQL cluster can be made: {fault}")
    with cluster_lock(cluster.directory) as lock:
        made = major_of(cluster.directory) is None
        if made:
            _refuse_foreign(cluster.directory)
            _make(cluster, binaries or newest(root), lock)
        else:
            _replace_lost_password(cluster, binaries_of(cluster.directory, root), lock)
        configure(cluster)
    return made


def superuser_password(cluster: Cluster) -> str:
    """Return the superuser's password of a cluster with a ``passfile``; generate it if there is none yet.

    Raises ClusterError if the file is lost.
    """
    assert cluster.passfile is not None
    if _password_lost(cluster):
        raise ClusterError(
            f"{cluster.passfile} is missing, so nobody can log in to PostgreSQL as its superuser",
            hint="A new password is set while it is stopped: helmctl stop postgres; helmctl setup; helmctl up",
        )
    return ensure_superuser_password(cluster.passfile)


def _password_lost(cluster: Cluster) -> bool:
    return (
        cluster.passfile is not None
        and not os.path.lexists(cluster.passfile)
        and SUPERUSER not in current_mappings(cluster)
    )


def _replace_lost_password(cluster: Cluster, binaries: Binaries, lock: int) -> None:
    """Set a new password of the superuser of a stopped cluster if the file with its password is lost.

    This uses single-user mode, which needs no password and allows no connections, unlike a rule in pg_hba.conf.
    """
    if not _password_lost(cluster) or running(cluster) is not None:
        return

    def set_new() -> str:
        password = new_secret()
        command = [str(binaries.program("postgres")), "--single", "-D", str(cluster.directory), SUPERUSER]
        statement = f"ALTER ROLE {SUPERUSER} PASSWORD '{password}'\n"
        run_program(command, lock, cluster.directory, "setting the superuser's password", stdin=statement)
        return password

    assert cluster.passfile is not None
    ensure_superuser_password(cluster.passfile, set_new)


def configure(
    cluster: Cluster, place: Path | None = None, change: Callable[[Mappings], Mappings] = lambda known: known
) -> bool:
    """Write the configuration files and have a running server reload them; return whether something changed.

    CHANGE maps the roles as which the account may log in without a password to the new ones. PLACE is the directory of
    the files if it is not the cluster's own. A changed port, socket, number of connections or memory takes effect with
    the next restart.
    """
    directory = place or cluster.directory
    # Also from inside the unit's sandbox.
    with locked_directory(directory):
        if cluster.tcp:
            _ensure_certificate(directory, cluster.account)
        mappings = change(current_mappings(cluster, directory))
        if cluster.passfile is None:
            mappings = dict.fromkeys((*mappings, SUPERUSER, *cluster.peers))
        files = {
            "postgresql.conf": main_file(),
            HELM_FILE: helm_file(cluster, machine_memory()),
            # Before the mappings, so that a role without one can log in by password.
            "pg_hba.conf": hba_file(cluster, mappings),
            "pg_ident.conf": ident_file(cluster.account, mappings),
        }
        changed = [write_if_changed(directory / name, text, 0o600) for name, text in files.items()]
    if place is None:
        # Also if nothing changed: an earlier run may have been killed before it sent the signal.
        reload_cluster(cluster)
    return any(changed)


def _ensure_certificate(directory: Path, account: str) -> None:
    """Create the server's key and self-signed certificate in DIRECTORY. Raises as `ensure_certificate` does."""
    # Imported here, since cryptography is slow to import, and rarely needed.
    from helmd.files.key_pair import CertificateRequest, ensure_certificate

    name = f"PostgreSQL of {account}"[:64]
    wanted = CertificateRequest(name, (), _VALID_FROM, _VALID_UNTIL)
    # Checkouts are opened without following links; a link in the path of a cluster was set by the admin.
    place = directory.resolve()
    ensure_certificate(place / CERTIFICATE, place / PRIVATE_KEY, wanted)


def current_mappings(cluster: Cluster, place: Path | None = None) -> Mappings:
    """Return the roles as which the account may log in without a password, from the files of CLUSTER."""
    try:
        return mappings_in(
            ((place or cluster.directory) / "pg_ident.conf").read_text(encoding="utf-8", errors="replace")
        )
    except FileNotFoundError:
        return {}


def reload_cluster(cluster: Cluster) -> None:
    """Make the server reload its configuration (SIGHUP), if it is running."""
    pid = running(cluster)
    if pid is not None:
        os.kill(pid, signal.SIGHUP)


def running(cluster: Cluster) -> int | None:
    """Return the pid of the server on this cluster, or None."""
    return unlock.holder(str(cluster.directory))


@contextlib.contextmanager
def cluster_lock(directory: Path) -> Iterator[int]:
    """Hold the lock for creating and upgrading the cluster; programs started inherit it, in case this process is
    killed.
    """
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory.parent / f".{directory.name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        acquire(descriptor, f"another process works on the cluster in {directory}", wait=_LOCK_WAIT)
        yield descriptor
    finally:
        os.close(descriptor)


def run_program(
    arguments: list[str], lock: int, cwd: Path, what: str, cluster: Cluster | None = None, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run one of PostgreSQL's programs, which may log in as the superuser of CLUSTER.

    Raises ClusterError with its last lines if it fails.
    """
    # Imported here, since helmctl status imports this module and starts no program.
    import subprocess

    done = subprocess.run(
        arguments,
        cwd=cwd,
        env=dict(server_environment(cluster)),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(
            f"{what} failed with exit code {done.returncode}", lines=(done.stdout or "").splitlines()[-12:]
        )
    return done


def initialise(cluster: Cluster, place: Path, binaries: Binaries, lock: int, checksums: bool = True) -> None:
    """initdb(1) into PLACE, an empty directory, with the configuration of CLUSTER."""
    command = [
        str(binaries.program("initdb")),
        f"--pgdata={place}",
        f"--username={SUPERUSER}",
        f"--auth-local={'peer' if cluster.passfile is None else 'scram-sha-256'}",
        "--auth-host=reject",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-instructions",
    ]
    if checksums:
        command.append("--data-checksums")
    elif binaries.major >= 18:
        command.append("--no-data-checksums")
    password = ""
    if cluster.passfile is not None:
        command.append("--pwfile=/dev/stdin")
        password = ensure_superuser_password(cluster.passfile)
    run_program(command, lock, place.parent, "initdb", stdin=password)
    configure(cluster, place)


def scratch(directory: Path, purpose: str) -> Path:
    """Create a temporary directory beside DIRECTORY; remove leftover ones first."""
    # Imported here, since helmctl status imports this module and needs to be fast.
    import shutil
    import tempfile

    prefix = f".{directory.name}.{purpose}-"
    for left in directory.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))


def _make(cluster: Cluster, binaries: Binaries, lock: int) -> None:
    import shutil

    place = scratch(cluster.directory, "making")
    try:
        initialise(cluster, place, binaries, lock)
        if cluster.directory.is_dir():
            cluster.directory.rmdir()
        place.rename(cluster.directory)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    fsync_directory(cluster.directory.parent)


def _refuse_foreign(directory: Path) -> None:
    """Raise ClusterError if DIRECTORY has other content."""
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise ClusterError(f"{directory} is not a directory", hint="Move it away and run helmctl setup again.")
    if directory.is_dir() and any(directory.iterdir()):
        raise ClusterError(
            f"{directory} holds files but no PostgreSQL cluster",
            hint="Move it away and run helmctl setup again.",
        )
