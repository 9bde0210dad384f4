"""Upgrading a cluster to a newer major version of PostgreSQL with pg_upgrade(1), keeping the old one.

The new cluster is created beside the old one, then the two directories are exchanged atomically (renameat2(2),
RENAME_EXCHANGE), so that after an interruption either the old cluster or the new one is in place.
"""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from helmd.files.durable import fsync_directory
from helmd.model.errors import NotSetUpError
from helmd.postgres.binaries import INSTALLED, Binaries, binaries_of, newest
from helmd.postgres.cluster import ClusterError, cluster_lock, configure, initialise, run_program, running, scratch
from helmd.postgres.configuration import ADMIN_FILE, CERTIFICATE, PRIVATE_KEY, SUPERUSER, Cluster

_UNUSED = "hivematrix.unused"
"""Marker file in a new cluster until the exchange: a directory with it may be deleted."""

_ADMIN_FILES = (ADMIN_FILE, "postgresql.auto.conf")
_PROGRAMS = ("pg_upgrade", "pg_dump", "pg_controldata", "vacuumdb")
_OPEN_COPIES = "UPDATE pg_database SET datallowconn = true WHERE NOT datallowconn AND datname <> 'template0'\n"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The result of an upgrade. ``kept`` is the old cluster, for the admin to delete."""

    old: int
    new: int
    kept: Path | None


def upgrade_cluster(
    cluster: Cluster,
    progress: Progress = lambda sentence: None,
    *,
    target: Binaries | None = None,
    root: Path = INSTALLED,
) -> Upgraded:
    """Upgrade a stopped cluster to TARGET (default: the newest version installed); can be interrupted and repeated.

    Without a TARGET, a cluster of the newest version is not changed. PROGRESS is called with a sentence for each step.
    Raises ClusterError if it is running or pg_upgrade fails, NotSetUpError if programs of a version are missing.
    """
    with cluster_lock(cluster.directory) as lock:
        old = binaries_of(cluster.directory, root)
        new = target or newest(root)
        kept = kept_directory(cluster.directory, old.major)
        _finish_interrupted(cluster.directory, kept)
        if target is None and new.major <= old.major:
            return Upgraded(old.major, old.major, None)
        _check(cluster, old, new, kept)
        place = scratch(cluster.directory, "upgrading")
        try:
            _build(cluster, old, new, place, lock, progress)
            progress("Putting the new cluster in the old one's place")
            (place / "new").rename(kept)
            fsync_directory(kept.parent)
            try:
                _exchange(kept, cluster.directory)
            except ClusterError:
                shutil.rmtree(kept)
                raise
            (cluster.directory / _UNUSED).unlink()
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return Upgraded(old.major, new.major, kept)


def kept_directory(directory: Path, major: int) -> Path:
    """Return the directory in which the old cluster is kept."""
    return directory.with_name(f"{directory.name}.before-upgrade-{major}")


def undo_upgrade(cluster: Cluster, done: Upgraded) -> None:
    """Put the old cluster back in its place and delete the new one, with all that was written to it since.

    Raises ClusterError if the new one is running.
    """
    if done.kept is None:
        return
    with cluster_lock(cluster.directory):
        if running(cluster) is not None:
            raise ClusterError(f"the cluster in {cluster.directory} is running", hint="Stop its unit first.")
        # From here on the new cluster may be deleted, also by the next upgrade after an interruption.
        (cluster.directory / _UNUSED).touch()
        fsync_directory(cluster.directory)
        _exchange(done.kept, cluster.directory)
        shutil.rmtree(done.kept)


def analyze(cluster: Cluster) -> None:
    """Collect the planner's statistics of all databases, which pg_upgrade(1) does not transfer, in three stages.

    Raises ClusterError if vacuumdb(1) fails.
    """
    vacuumdb = binaries_of(cluster.directory).program("vacuumdb")
    command = [str(vacuumdb), "--all", "--analyze-in-stages", "--no-password", f"--username={SUPERUSER}"]
    command += [f"--host={cluster.socket}", f"--port={cluster.port}"]
    with cluster_lock(cluster.directory) as lock:
        run_program(command, lock, cluster.directory, "vacuumdb", cluster)


def delete_kept(cluster: Cluster, kept: Path) -> None:
    """Delete an old cluster that an upgrade kept."""
    if kept.parent != cluster.directory.parent or not kept.name.startswith(f"{cluster.directory.name}.before-upgrade-"):
        raise ClusterError(f"{kept} is not what an upgrade of {cluster.directory} left")
    shutil.rmtree(kept)


def _check(cluster: Cluster, old: Binaries, new: Binaries, kept: Path) -> None:
    pid = running(cluster)
    if pid is not None:
        raise ClusterError(
            f"the cluster in {cluster.directory} is running (pid {pid})",
            hint="Stop its unit, then run this again.",
        )
    if new.major < old.major:
        raise ClusterError(f"a cluster of PostgreSQL {old.major} can't go back to {new.major}")
    for each in (old, new):
        if not each.has(*_PROGRAMS):
            raise NotSetUpError(
                f"{each.directory} has not all of {', '.join(_PROGRAMS)}",
                hint=f"sudo apt install postgresql-{each.major} postgresql-client-{each.major}",
            )
    if kept.exists():
        raise ClusterError(
            f"{kept} is still there from an earlier upgrade",
            hint="Delete it when you no longer need it, or move it away.",
        )
    size = sum(file.lstat().st_size for file in cluster.directory.rglob("*") if not file.is_dir())
    free = shutil.disk_usage(cluster.directory.parent).free
    if free < size * 1.1 + 256 * 2**20:
        raise ClusterError(
            f"the upgrade copies {size // 2**20} MB and needs 256 MB more, but only {free // 2**20} MB are free",
            hint="Free some space and run this again; nothing was changed.",
        )


def _build(cluster: Cluster, old: Binaries, new: Binaries, place: Path, lock: int, progress: Progress) -> None:
    """Create the new cluster at PLACE/new."""
    control = run_program(
        [str(old.program("pg_controldata")), str(cluster.directory)], lock, place, "pg_controldata"
    ).stdout
    facts = dict(line.split(":", 1) for line in control.splitlines() if ":" in line)
    if facts.get("Database cluster state", "").strip() != "shut down":
        progress("The old cluster was not shut down cleanly: recovering it first")
        command = [str(old.program("postgres")), "--single", "-D", str(cluster.directory), "template1"]
        run_program(command, lock, place, "recovery of the old cluster")
    progress(f"Making an empty cluster of PostgreSQL {new.major}")
    made = place / "new"
    made.mkdir(mode=0o700)
    checksums = facts.get("Data page checksum version", "0").strip() != "0"
    initialise(cluster, made, new, lock, checksums)
    shutil.copy2(cluster.directory / "pg_ident.conf", made / "pg_ident.conf")
    for name in (CERTIFICATE, PRIVATE_KEY) if cluster.certificate.exists() else ():
        # Clients verify the server by them.
        shutil.copy2(cluster.directory / name, made / name)
    # Again, since it depends on the first whether a password is needed.
    configure(cluster, made)
    # pg_upgrade refuses databases that allow no connections, as copies of modules' databases. Privileges are unchanged.
    command = [str(old.program("postgres")), "--single", "-D", str(cluster.directory), "template1"]
    run_program(command, lock, place, "preparing the old cluster", stdin=_OPEN_COPIES)
    progress(f"Copying the databases from PostgreSQL {old.major} to {new.major}")
    with ExitStack() as stack:
        # A socket's name has at most 107 bytes, which a path below a home directory may exceed.
        socket = stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-", dir=_short_directory()))
        command = [str(new.program("pg_upgrade")), f"--username={SUPERUSER}", f"--socketdir={socket}"]
        command += [f"--old-bindir={old.directory}", f"--new-bindir={new.directory}"]
        command += [f"--old-datadir={cluster.directory}", f"--new-datadir={made}"]
        run_program(command, lock, place, "pg_upgrade", cluster)
    for name in _ADMIN_FILES:
        if (cluster.directory / name).is_file():
            shutil.copy2(cluster.directory / name, made / name)
    check = [str(new.program("postgres")), "-D", str(made), "-C", "shared_buffers"]
    run_program(check, lock, place, f"reading {' and '.join(_ADMIN_FILES)} with PostgreSQL {new.major}")
    (made / _UNUSED).touch()
    os.sync()


def _finish_interrupted(directory: Path, kept: Path) -> None:
    """Complete an upgrade that was interrupted around the exchange: the cluster in the original place is valid."""
    (directory / _UNUSED).unlink(missing_ok=True)
    for place in directory.parent.glob(f"{directory.name}.before-upgrade-*"):
        if (place / _UNUSED).exists():
            shutil.rmtree(place)
    scratch(directory, "upgrading").rmdir()


def _short_directory() -> str:
    return "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()  # noqa: S108 - a fresh 0700 directory in it


def _exchange(one: Path, other: Path) -> None:
    """Exchange two directories atomically."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise ClusterError(
            f"{one} and {other} can't change places: {os.strerror(number)}",
            hint="The file system below it can't exchange directories; nothing was changed.",
        )
    fsync_directory(one.parent)
