"""Starting and stopping a sandbox, including reboot and power cut."""

import os
import shutil
import signal
import time
import uuid
from pathlib import Path

from . import base, cgroup, host, keeper, network
from .capture import capture
from .host_environment import proxies
from .place import ACCOUNT, Place, SandboxError, private_directory, state_root
from .settings import Limits, Settings

BOOT_TIMEOUT = 120.0
SHUTDOWN_TIMEOUT = 200.0  # above systemd's 90 s for a hanging unit, twice (the account's manager, then the system's)
USER_JOBS_TIMEOUT = 5.0
SIGRTMIN_POWEROFF = signal.SIGRTMIN + 4  # systemd(1), SIGNALS
SIGRTMIN_REBOOT = signal.SIGRTMIN + 5


def up(
    place: Place,
    network_kind: str,
    publish: tuple[tuple[int, int], ...],
    release: str,
    layer: str | None,
    limits: Limits,
) -> None:
    """Start a new sandbox and return once its system and the account's user manager are up."""
    host.require_commands(host.BOOT_COMMANDS + (host.NETWORK_COMMANDS if network_kind == "private" else ()))
    identity = base.ensure(release)
    stack: tuple[str, ...] = ()
    if layer is not None:
        found = base.usable_layer(layer, identity)
        stack = (found.name, *found.parents)
    settings = Settings(network_kind, identity, release, limits, publish, stack)
    try:
        private_directory(state_root())
        place.directory.mkdir(mode=0o700)
        settings.write(place.settings)
        keeper.make_disk(place, limits.disk)
        _boot(place, settings, first=True)
    except BaseException:
        down(place)
        raise


def _boot(place: Place, settings: Settings, first: bool) -> None:
    started = keeper.start(place, settings)
    network.start(place, settings, started.pid)
    if first:
        _write_identity(place, started.root, settings)
        # A power cut right after `up` must not lose the machine's identity.
        host.run(["sync", "--file-system", str(started.root)], "could not sync the new sandbox")
    _limit(place, settings.limits)
    started.boot()
    await_up(place)
    place.ready.touch()


def _limit(place: Place, limits: Limits) -> None:
    """Limit what runs inside, by a watchdog where this machine has no controller."""
    by = cgroup.limit(place, limits)
    if missing := [what for what in ("memory", "tasks") if what not in by]:
        host.say(
            f"Note: no cgroup controller for {' and '.join(missing)} here; a watchdog kills what exceeds the limit"
        )
        keeper.start_watchdog(place, 0 if "memory" in by else limits.memory, 0 if "tasks" in by else limits.tasks)


def _write_identity(place: Place, root: Path, settings: Settings) -> None:
    """Write the files that differ between sandboxes. The machine id is set before the first boot."""
    resolvers = network.resolv_conf(settings, host.resolv_conf())
    variables = "".join(f"{key}={value}\n" for key, value in proxies().items())
    _write(root / "etc/machine-id", uuid.uuid4().hex + "\n")
    _write(root / "etc/hostname", place.name + "\n")
    _write(root / "etc/hosts", f"127.0.0.1 localhost {place.name}\n::1 localhost ip6-localhost ip6-loopback\n")
    _write(root / "etc/resolv.conf", resolvers)
    if variables:
        _write(root / "etc/environment", variables)
        _write(root / "etc/environment.d/50-host-proxy.conf", variables)


def _write(path: Path, text: str) -> None:
    # The host would resolve a symbolic link outside of the sandbox, so it is replaced.
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with path.open("x") as stream:
        stream.write(text)


def await_up(place: Place) -> None:
    """Wait for PID 1, the end of its start-up jobs, and the account's user manager."""
    deadline = time.monotonic() + BOOT_TIMEOUT
    while True:
        if not cgroup.populated(place):
            raise SandboxError(f"{place.name!r} ended while it was booting", keeper.console_tail(place))
        pid = cgroup.leader(place)
        state = _manager_state(pid, []) if pid else "not running"
        user = ""
        if pid and state in {"running", "degraded"}:
            user = _user_state(pid)
            if user in {"running", "degraded", "starting"}:
                break
        if time.monotonic() > deadline:
            raise SandboxError(
                f"{place.name!r} was not up after {BOOT_TIMEOUT:.0f} s "
                f"(system {state}, user manager {user or 'not asked'})",
                keeper.console_tail(place),
            )
        time.sleep(0.03)
    for manager, options in (("system", []), (f"{ACCOUNT}'s", ["--user"])):
        if (state if manager == "system" else user) == "degraded":
            failed = capture(
                pid, ["systemctl", *options, "--failed", "--plain", "--no-legend"], account=bool(options)
            ).stdout
            units = ", ".join(line.split()[0] for line in failed.splitlines() if line.strip())
            host.say(f"Note: {manager} manager is degraded; failed: {units}")
    if user == "starting":
        host.say(f"Note: {ACCOUNT}'s manager is up and still starting units")


def _manager_state(pid: int, options: list[str]) -> str:
    done = capture(pid, ["systemctl", *options, "is-system-running", "--wait"], timeout=20)
    return done.stdout.strip() or "not answering"


def _user_state(pid: int) -> str:
    """Return the manager's state after its first jobs, without waiting for units that take long to start."""
    ask = ["systemctl", "--user", "is-system-running"]
    done = capture(pid, [*ask, "--wait"], account=True, timeout=USER_JOBS_TIMEOUT)
    if not done.stdout:
        done = capture(pid, ask, account=True, timeout=USER_JOBS_TIMEOUT)
    return done.stdout.strip() or "not answering"


def is_up(place: Place) -> bool:
    """Return whether `up` completed and the sandbox is running."""
    return place.ready.exists() and cgroup.leader(place) is not None


def reboot(place: Place) -> None:
    """Reboot cleanly; the keeper starts the system again."""
    before = _require_leader(place)
    _signal_and_wait(place, before, SIGRTMIN_REBOOT)
    await_up(place)


def power_cut(place: Place) -> None:
    """Simulate a power cut: discard unsynced data, then boot from the disk."""
    _require_leader(place)
    settings = Settings.read(place.settings)
    keeper.cut_power(place)
    stop_everything(place)
    boot_again(place, settings)


def boot_again(place: Place, settings: Settings) -> None:
    """Boot from the existing disk; on failure everything is stopped, and the disk is kept for inspection."""
    # Changes must not be combined with another base than the one they were made on.
    if base.base_identity(settings.release, any_recipe=True) != settings.base:
        raise SandboxError(f"the base of {place.name!r} has been replaced", "take it down, then up again")
    for name in settings.layers:
        base.usable_layer(name, settings.base)
    try:
        _boot(place, settings, first=False)
    except BaseException:
        stop_everything(place)
        raise


def save(place: Place, name: str, stay_down: bool) -> None:
    """Shut down cleanly and save the changes as a layer; boot again unless `stay_down`."""
    leader = _require_leader(place)
    settings = Settings.read(place.settings)
    target = base.layer_directory(name)
    with base.cache_lock():
        base.sweep()
        if any(name in item.parents for item in base.layers()) or name in settings.layers:
            raise SandboxError(f"other layers or this sandbox depend on layer {name!r}", "save it under another name")
        base.remove_unused(target, f"layer {name!r}")
        _signal_and_wait(place, leader, SIGRTMIN_POWEROFF)
        stop_everything(place)
        base.store_layer(place, settings, target)
    if stay_down:
        down(place)
    else:
        boot_again(place, settings)


def _require_leader(place: Place) -> int:
    pid = cgroup.leader(place)
    if pid is None:
        raise not_up(place)
    return pid


def not_up(place: Place) -> SandboxError:
    extra = "" if place.name == "helm" else f" --name {place.name}"
    return SandboxError(f"sandbox {place.name!r} is not up", f"start it: scripts/sandbox up{extra}")


def _signal_and_wait(place: Place, pid: int, number: int) -> None:
    """Send PID 1 a shutdown signal and wait until it has ended."""
    watch = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(watch, number)
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT
        while cgroup.leader(place) == pid:
            if time.monotonic() > deadline:
                raise SandboxError(
                    f"{place.name!r} did not shut down within {SHUTDOWN_TIMEOUT:.0f} s", keeper.console_tail(place)
                )
            time.sleep(0.01)
    finally:
        os.close(watch)


def stop_everything(place: Place) -> None:
    """Stop all processes and unmount everything; keep the disk."""
    cgroup.kill(place)
    keeper.await_release(place)
    cgroup.remove(place)


def down(place: Place) -> None:
    """Remove the sandbox's processes, mounts, devices, cgroups and directory. May be repeated after an interruption."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        stop_everything(place)
        if place.directory.exists():
            for mount in (place.root_mount, place.disk_mount):
                if mount.is_mount():  # not by us: rmtree would delete the mounted files
                    raise SandboxError(f"something is mounted on {mount}", f"look what it is, then: umount {mount}")
            shutil.rmtree(place.directory)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exists(place: Place) -> bool:
    return place.directory.exists() or cgroup.top(place).exists()


def disk_usage(place: Place) -> int:
    """Return the bytes that the sandbox's sparse disk takes on the host."""
    return place.disk.stat().st_blocks * 512 if place.disk.exists() else 0
