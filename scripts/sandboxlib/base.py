"""The Debian bases, one for each release, that sandboxes share read-only, and the layers saved on top of them.

Both are built in a temporary directory and renamed when complete. A sandbox holds a shared flock on the directories
that it uses, so that they are not replaced or removed; the kernel releases it when its last process ends.
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
    DEFAULT_RELEASE,
    NAME_PATTERN,
    RELEASES,
    Place,
    SandboxError,
    cache_root,
    checked_name,
    private_directory,
)
from .settings import Settings

INCLUDE = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,ca-certificates,iproute2,procps"
# The account is a member of systemd-journal before lingering is enabled: a running user manager keeps its groups.
SETTLE = f"""
useradd --create-home --uid {ACCOUNT_UID} --user-group --shell /bin/bash --groups systemd-journal {ACCOUNT}
install -d /var/lib/systemd/linger
: > /var/lib/systemd/linger/{ACCOUNT}
install -d -m 2755 -g systemd-journal /var/log/journal
update-ca-certificates > /dev/null 2>&1
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/resolv.conf /etc/hostname /var/lib/systemd/random-seed
"""
RECIPE = hashlib.sha256("\n".join([INCLUDE, SETTLE, "1"]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Layer:
    """A saved sandbox: its name, its base, and the layers below it, nearest first."""

    name: str
    base: str
    parents: tuple[str, ...]
    made: float


def base_directory(release: str) -> Path:
    return cache_root() / f"base-{release}"


def tree(release: str) -> Path:
    return base_directory(release) / "tree"


def layer_directory(name: str) -> Path:
    return cache_root() / "layers" / checked_name(name)


@contextmanager
def cache_lock() -> Iterator[None]:
    """Hold the lock for building and saving; wait if another process has it."""
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


def base_identity(release: str, any_recipe: bool = False) -> str | None:
    """Return the id of the cached base, or None if there is none, or (unless `any_recipe`) if its recipe has
    changed.
    """
    with suppress(OSError, ValueError, KeyError):
        facts = json.loads((base_directory(release) / "base.json").read_text())
        if any_recipe or facts["recipe"] == RECIPE:
            return str(facts["id"])
    return None


def hold(paths: list[Path]) -> list[int]:
    """Open each directory with a shared flock, which prevents its removal while a process has the descriptor."""
    held: list[int] = []
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SandboxError(f"{path} is being replaced", "try again later") from None
    return held


def remove_unused(path: Path, what: str) -> None:
    """Remove a cached tree. Raises SandboxError if a sandbox uses it."""
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        trash = path.with_name(f".building-{uuid.uuid4().hex}")
        path.rename(trash)
        shutil.rmtree(trash)
    except BlockingIOError:
        raise SandboxError(
            f"{what} is in use by a running sandbox",
            "see scripts/sandbox list; end it first: scripts/sandbox down --all",
        ) from None
    finally:
        os.close(descriptor)


def sweep() -> None:
    """Remove leftovers of interrupted builds and saves. The cache lock must be held."""
    for directory in (cache_root(), cache_root() / "layers"):
        for leftover in directory.glob(".building-*"):
            shutil.rmtree(leftover)


def ensure(release: str, fresh: bool = False) -> str:
    """Build the base if it is missing or `fresh` is set; return its id."""
    with cache_lock():
        sweep()
        identity = base_identity(release)
        if identity is not None and not fresh:
            return identity
        host.require_commands(host.BASE_COMMANDS)
        remove_unused(base_directory(release), f"the base of {release}")
        return _build(release)


def _build(release: str) -> str:
    started = time.monotonic()
    host.say(f"Building the {RELEASES[release]} base (once, about half a minute) …")
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_root()))
    try:
        staging.chmod(0o700)
        _bootstrap(staging / "tree", release)
        _trust_host_authorities(staging / "tree")
        _in_tree(staging / "tree", SETTLE)
        _write_apt(staging / "tree")
        identity = uuid.uuid4().hex
        facts = {"id": identity, "recipe": RECIPE, "suite": release, "made": time.time()}
        (staging / "base.json").write_text(json.dumps(facts) + "\n")
        staging.rename(base_directory(release))
    except BaseException:
        _remove_with_retries(staging)
        raise
    host.say(f"Base ready after {time.monotonic() - started:.0f} s, in {base_directory(release)}")
    return identity


def _remove_with_retries(staging: Path) -> None:
    """Remove a tree to which killed processes may still be writing."""
    for _ in range(100):
        shutil.rmtree(staging, ignore_errors=True)
        if not staging.exists():
            return
        time.sleep(0.05)
    host.say(f"Could not remove {staging}; the next build will retry")


def _bootstrap(target: Path, release: str) -> None:
    command = ["mmdebstrap", "--variant=minbase", f"--include={INCLUDE}"]
    options = target.with_name("apt-options")
    options.write_text(host.apt_options())
    command += [f"--aptopt={options}"]
    if credentials := host.apt_credentials():
        kept = " ".join(f"'{path}'" for path in credentials)
        command += [f'--setup-hook=install -D -m 600 -t "$1/etc/apt/auth.conf.d" {kept}']
    command += [release, str(target), *host.debian_sources(release)]
    # --kill-child and a mount namespace, so that no process or mount remains however this ends.
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
    lines: list[str] = []
    try:
        assert builder.stdout is not None
        for line in builder.stdout:
            lines.append(line.rstrip())
            if line.startswith("I: "):
                host.say("  " + line[3:].rstrip())
        status = builder.wait()
    finally:
        if builder.poll() is None:
            builder.kill()
            builder.wait()
    options.unlink()
    if status != 0:
        raise SandboxError(f"mmdebstrap could not build the base (exit {status})", "\n".join(lines[-12:]))


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
    """Install the host's authorities as local certificates, which later runs of update-ca-certificates keep."""
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


def release_of(name: str) -> str:
    """Return the release of a layer; the default for one that is missing or unusable, which `usable_layer` reports."""
    found = layer(name)
    known = {base_identity(release): release for release in RELEASES}
    return known.get(found.base, DEFAULT_RELEASE) if found else DEFAULT_RELEASE


def usable_layer(name: str, identity: str) -> Layer:
    """Return the layer. Raises SandboxError if it can't be used."""
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
            raise SandboxError(f"layer {name!r} depends on layer {parent!r}, which was removed or replaced", again)
    return found


def store_layer(place: Place, settings: Settings, target: Path) -> None:
    """Copy the changes of the (stopped) sandbox to a new layer. The cache lock must be held."""
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=private_directory(target.parent)))
    try:
        # In a mount namespace and in the sandbox's cgroup, so that neither mount nor process remains.
        cgroup.create(place)
        join = "; ".join(f"echo $$ > '{path}'" for path in cgroup.join_files(place, "keeper"))
        upper = place.disk_mount / "upper"
        copy = f"{join}; mount -t ext4 -o loop '{place.disk}' '{place.disk_mount}'; cp -a '{upper}' '{staging}/upper'"
        host.run(
            ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-euc", copy],
            "could not copy the sandbox's changes",
        )
        for path in (staging / "upper/var/log/journal").glob("*"):
            shutil.rmtree(path)
        for name in ("etc/machine-id", "var/lib/systemd/random-seed"):
            (staging / "upper" / name).unlink(missing_ok=True)
        facts = {"base": settings.base, "parents": settings.layers, "made": time.time()}
        (staging / "layer.json").write_text(json.dumps(facts) + "\n")
        staging.rename(target)
    except BaseException:
        _remove_with_retries(staging)
        raise
    finally:
        cgroup.kill(place)
        cgroup.remove(place)


def forget(name: str) -> None:
    with cache_lock():
        sweep()
        above = [item.name for item in layers() if name in item.parents]
        if above:
            raise SandboxError(f"layers depend on {name!r}: {', '.join(above)}", "forget those first")
        if layer(name) is None:
            raise SandboxError(f"there is no layer {name!r}", "see scripts/sandbox list")
        remove_unused(layer_directory(name), f"layer {name!r}")


def forget_all() -> None:
    """Remove the bases and every layer from the cache."""
    with cache_lock():
        sweep()
        for item in layers():
            remove_unused(layer_directory(item.name), f"layer {item.name!r}")
        for release in RELEASES:
            remove_unused(base_directory(release), f"the base of {release}")
        shutil.rmtree(cache_root() / "layers", ignore_errors=True)
    shutil.rmtree(cache_root(), ignore_errors=True)
