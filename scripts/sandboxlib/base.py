"""The Debian base that every sandbox shares read-only, and the layers saved on top of it.

Both are built beside their place and renamed into it when whole. A sandbox that runs on one holds a shared flock on
its directory, so that nothing in use is replaced or removed; the lock ends with the last process, however it ends.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from . import cgroup, host
from .place import (
    ACCOUNT,
    ACCOUNT_UID,
    NAME_PATTERN,
    Place,
    SandboxError,
    Settings,
    cache_root,
    checked_name,
    private_directory,
)

SUITE = "bookworm"
INCLUDE = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,ca-certificates,iproute2,procps"
# The account is in systemd-journal before it lingers: its user manager never learns of a group joined later.
SETTLE = f"""
useradd --create-home --uid {ACCOUNT_UID} --user-group --shell /bin/bash --groups systemd-journal {ACCOUNT}
install -d /var/lib/systemd/linger
: > /var/lib/systemd/linger/{ACCOUNT}
install -d -m 2755 -g systemd-journal /var/log/journal
update-ca-certificates > /dev/null 2>&1
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/resolv.conf /etc/hostname /var/lib/systemd/random-seed
"""
RECIPE = hashlib.sha256("\n".join([SUITE, INCLUDE, SETTLE, "1"]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Layer:
    """A saved sandbox: its name, the base it stands on and the layers below it, nearest first."""

    name: str
    base: str
    parents: tuple[str, ...]
    made: float


def tree() -> Path:
    return cache_root() / "base" / "tree"


def layer_directory(name: str) -> Path:
    return cache_root() / "layers" / checked_name(name)


@contextmanager
def cache_lock() -> Iterator[None]:
    """One builder at a time; a second one waits."""
    path = private_directory(cache_root()) / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            host.say("Waiting for another scripts/sandbox that is building …")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def base_identity(any_recipe: bool = False) -> str | None:
    """The id of the cached base; None if there is none, or one made by another recipe (unless any will do)."""
    with suppress(OSError, ValueError, KeyError):
        facts = json.loads((cache_root() / "base" / "base.json").read_text())
        if any_recipe or facts["recipe"] == RECIPE:
            return str(facts["id"])
    return None


def hold(paths: list[Path]) -> list[int]:
    """Open each directory with a shared flock: as long as a process has these, nobody replaces them."""
    held: list[int] = []
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SandboxError(f"{path} is being replaced just now", "try again in a moment") from None
    return held


def remove_unused(path: Path, what: str) -> None:
    """Remove a cached tree, unless a sandbox stands on it."""
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        doomed = path.with_name(f".building-{uuid.uuid4().hex}")
        path.rename(doomed)
        shutil.rmtree(doomed)
    except BlockingIOError:
        raise SandboxError(
            f"{what} is in use by a running sandbox",
            "see scripts/sandbox list; end it first: scripts/sandbox down --all",
        ) from None
    finally:
        os.close(descriptor)


def sweep() -> None:
    """Remove what an interrupted build or save has left. Call with the cache lock held."""
    for directory in (cache_root(), cache_root() / "layers"):
        for leftover in directory.glob(".building-*"):
            shutil.rmtree(leftover)


def ensure(fresh: bool = False) -> str:
    """Make the base if it is not there (or `fresh` asks for a new one); its id."""
    with cache_lock():
        sweep()
        identity = base_identity()
        if identity is not None and not fresh:
            return identity
        host.require_commands(host.BASE_COMMANDS)
        remove_unused(cache_root() / "base", "the base")
        return _build()


def _build() -> str:
    started = time.monotonic()
    host.say("Building the Debian 12 base, once (about half a minute) …")
    room = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_root()))
    try:
        room.chmod(0o700)
        _bootstrap(room / "tree")
        _trust_host_authorities(room / "tree")
        _in_tree(room / "tree", SETTLE)
        _write_apt(room / "tree")
        identity = uuid.uuid4().hex
        facts = {"id": identity, "recipe": RECIPE, "suite": SUITE, "made": time.time()}
        (room / "base.json").write_text(json.dumps(facts) + "\n")
        room.rename(cache_root() / "base")
    except BaseException:
        _remove_despite_writers(room)
        raise
    host.say(f"Base ready after {time.monotonic() - started:.0f} s, in {cache_root() / 'base'}")
    return identity


def _remove_despite_writers(room: Path) -> None:
    """Remove a tree in which killed processes may write a moment longer."""
    for _ in range(100):
        shutil.rmtree(room, ignore_errors=True)
        if not room.exists():
            return
        time.sleep(0.05)
    host.say(f"Could not remove {room}; the next build will try again")


def _bootstrap(target: Path) -> None:
    command = ["mmdebstrap", "--variant=minbase", f"--include={INCLUDE}"]
    options = target.with_name("apt-options")
    options.write_text(host.apt_options())
    command += [f"--aptopt={options}"]
    if credentials := host.apt_credentials():
        kept = " ".join(f"'{path}'" for path in credentials)
        command += [f'--setup-hook=install -D -m 600 -t "$1/etc/apt/auth.conf.d" {kept}']
    command += [SUITE, str(target), *host.debian_sources(SUITE)]
    # --kill-child and a mount namespace of its own: whichever way this ends, no process and no mount stays.
    wrapped = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *command]
    builder = subprocess.Popen(
        wrapped,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=host.environment(),
        preexec_fn=_die_with_parent,
    )
    words: list[str] = []
    try:
        assert builder.stdout is not None
        for line in builder.stdout:
            words.append(line.rstrip())
            if line.startswith("I: "):
                host.say("  " + line[3:].rstrip())
        status = builder.wait()
    finally:
        if builder.poll() is None:
            builder.kill()
            builder.wait()
    options.unlink()
    if status != 0:
        raise SandboxError(f"mmdebstrap could not build the base (exit {status})", "\n".join(words[-12:]))


def _die_with_parent() -> None:
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _in_tree(target: Path, script: str) -> None:
    host.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "chroot", str(target), "/bin/sh", "-euc", script],
        "could not prepare the base",
    )


def _trust_host_authorities(target: Path) -> None:
    """As local certificates, so that a later update-ca-certificates (Java's, say) keeps them."""
    known = host.certificates(target / "etc/ssl/certs/ca-certificates.crt")
    directory = target / "usr/local/share/ca-certificates"
    directory.mkdir(parents=True, exist_ok=True)
    for number, pem in enumerate(sorted(host.certificates(host.host_bundle()) - known), 1):
        (directory / f"host-{number:03}.crt").write_text(pem)


def _write_apt(target: Path) -> None:
    (target / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    if options := host.apt_options():
        (target / "etc/apt/apt.conf.d/90host").write_text(options)


def layer(name: str) -> Layer | None:
    try:
        facts = json.loads((layer_directory(name) / "layer.json").read_text())
    except FileNotFoundError:
        return None
    return Layer(name, str(facts["base"]), tuple(str(p) for p in facts["parents"]), float(facts["made"]))


def layers() -> list[Layer]:
    try:
        names = sorted(path.name for path in (cache_root() / "layers").iterdir())
    except FileNotFoundError:
        return []
    return [found for name in names if NAME_PATTERN.fullmatch(name) and (found := layer(name))]


def usable_layer(name: str, identity: str) -> Layer:
    """The layer, or why it cannot be used."""
    found = layer(name)
    again = f"prepare it again, then: scripts/sandbox save {name}"
    if found is None:
        have = ", ".join(item.name for item in layers()) or "none yet"
        raise SandboxError(
            f"there is no layer {name!r}", f"saved layers: {have}. Save one: scripts/sandbox save {name}"
        )
    if found.base != identity:
        raise SandboxError(f"layer {name!r} was made on a base that has been replaced since", again)
    for parent in found.parents:
        below = layer(parent)
        if below is None or below.base != identity or below.made > found.made:
            raise SandboxError(f"layer {name!r} stands on layer {parent!r}, which is gone or replaced", again)
    return found


def store_layer(place: Place, settings: Settings, target: Path) -> None:
    """Copy what the (stopped) sandbox changed into a new layer. Call with the cache lock held."""
    room = Path(tempfile.mkdtemp(prefix=".building-", dir=private_directory(target.parent)))
    try:
        # In a mount namespace of its own and in the sandbox's cgroup: neither mount nor process can stay behind.
        cgroup.create(place)
        join = "; ".join(f"echo $$ > '{path}'" for path in cgroup.join_files(place, "keeper"))
        upper = place.disk_mount / "upper"
        copy = f"{join}; mount -t ext4 -o loop '{place.disk}' '{place.disk_mount}'; cp -a '{upper}' '{room}/upper'"
        host.run(
            ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-euc", copy],
            "could not copy the sandbox's changes",
        )
        for path in (room / "upper/var/log/journal").glob("*"):
            shutil.rmtree(path)
        for name in ("etc/machine-id", "var/lib/systemd/random-seed"):
            (room / "upper" / name).unlink(missing_ok=True)
        facts = {"base": settings.base, "parents": settings.layers, "made": time.time()}
        (room / "layer.json").write_text(json.dumps(facts) + "\n")
        room.rename(target)
    except BaseException:
        _remove_despite_writers(room)
        raise
    finally:
        cgroup.kill(place)
        cgroup.remove(place)


def forget(name: str) -> None:
    with cache_lock():
        sweep()
        above = [item.name for item in layers() if name in item.parents]
        if above:
            raise SandboxError(f"layers stand on {name!r}: {', '.join(above)}", "forget those first")
        if layer(name) is None:
            raise SandboxError(f"there is no layer {name!r}", "see scripts/sandbox list")
        remove_unused(layer_directory(name), f"layer {name!r}")


def forget_all() -> None:
    """Remove the base and every layer from the cache."""
    with cache_lock():
        sweep()
        for item in layers():
            remove_unused(layer_directory(item.name), f"layer {item.name!r}")
        remove_unused(cache_root() / "base", "the base")
        shutil.rmtree(cache_root() / "layers", ignore_errors=True)
    shutil.rmtree(cache_root(), ignore_errors=True)
