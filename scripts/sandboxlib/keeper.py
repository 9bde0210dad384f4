"""The keeper: the process that owns a sandbox's mounts and starts systemd-nspawn, also after each reboot.

It has its own mount namespace (and a network namespace, for a private network). The disk, the overlay and nspawn's
mounts exist only there, so the kernel removes them and the loop device with the last process inside. A killed run
leaves nothing on the host but a directory and an empty cgroup.
"""

import fcntl
import os
import shlex
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import base, cgroup, host
from .place import Place, SandboxError
from .settings import Settings

DISK_RESERVE = 2 << 30  # minimum free space for starting
REBOOT_STATUS = 133  # systemd-nspawn(1), EXIT STATUS
EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), linux/ext4.h
EXT4_GOING_FLAGS_NOLOGFLUSH = 0x2

THIS_PROGRAM = (sys.executable, "-IS", str(Path(__file__).parent.parent / "sandbox"))

SCRIPT = """
for file in {join_keeper}; do echo $$ > "$file"; done
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 sandbox /run/systemd/nspawn
mount -t ext4 -o loop,noatime {disk} {disk_mount}
mkdir -p {disk_mount}/upper {disk_mount}/work
mount -t overlay -o lowerdir={lower},upperdir={disk_mount}/upper,workdir={disk_mount}/work sandbox {root_mount}
{loopback}
echo mounted
exec >&2
read -r go
exec < /dev/null
while :; do
    status=0
    /bin/sh -euc {start} || status=$?
    [ "$status" -eq {reboot} ] || break
done
echo "systemd-nspawn ended with status $status"
echo 1 > {kill} || exit "$status"
"""


@dataclass(frozen=True)
class Keeper:
    """A keeper that has mounted everything and waits for `boot`."""

    pid: int
    root: Path
    process: subprocess.Popen[bytes]

    def boot(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.close()


def make_disk(place: Place, size: int) -> None:
    """Create a sparse image of SIZE bytes with an ext4 file system, which `powercut` can shut down."""
    free = os.statvfs(place.directory)
    if free.f_bavail * free.f_frsize < DISK_RESERVE:
        raise SandboxError(
            f"less than {DISK_RESERVE >> 30} GB free for the sandbox's disk under {place.directory.parent}",
            "free some space, or set $HIVEMATRIX_SANDBOX_STATE to another directory",
        )
    with place.disk.open("xb") as image:
        image.truncate(size)
    host.run(
        ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", str(place.disk)],
        "could not format the sandbox's disk",
    )


def start(place: Place, settings: Settings) -> Keeper:
    """Start the keeper and wait until it has mounted the sandbox's root."""
    for directory in (place.disk_mount, place.root_mount):
        directory.mkdir(exist_ok=True)
    cgroup.create(place)
    trees = [base.layer_directory(name) / "upper" for name in settings.layers] + [base.tree(settings.release)]
    held = base.hold([tree.parent for tree in trees])
    mounted, announce = os.pipe()
    private = settings.network == "private"
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        *(["--net"] if private else []),
        "/bin/sh",
        "-euc",
        _script(place, trees, private),
    ]
    try:
        with place.console.open("ab") as console:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=announce,
                stderr=console,
                cwd="/",
                env=host.environment(),
                pass_fds=held,
                start_new_session=True,
                bufsize=0,
            )
    finally:
        for descriptor in (announce, *held):
            os.close(descriptor)
    with os.fdopen(mounted) as reader:
        first_line = reader.readline()
    if not first_line:
        process.wait()
        raise SandboxError(f"could not mount the disk of {place.name!r}", console_tail(place))
    return Keeper(process.pid, Path(f"/proc/{process.pid}/root") / place.root_mount.relative_to("/"), process)


def _script(place: Place, trees: list[Path], private: bool) -> str:
    nspawn = [
        "systemd-nspawn",
        "--quiet",
        "--directory",
        str(place.root_mount),
        "--boot",
        "--register=no",
        "--keep-unit",
        "--console=pipe",
        "--machine",
        place.name,
        "--resolv-conf=off",
        "--link-journal=no",
        "--timezone=off",
    ]
    if private:  # as nspawn does with --private-network
        nspawn = ["env", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network", *nspawn, "--capability=CAP_NET_ADMIN"]
    join = "; ".join(f"echo $$ > {shlex.quote(str(path))}" for path in cgroup.join_files(place, "box"))
    box = f"{join}; export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1; exec {shlex.join(nspawn)}"
    return SCRIPT.format(
        join_keeper=shlex.join(str(path) for path in cgroup.join_files(place, "keeper")),
        disk=shlex.quote(str(place.disk)),
        disk_mount=shlex.quote(str(place.disk_mount)),
        root_mount=shlex.quote(str(place.root_mount)),
        lower=shlex.quote(":".join(str(tree) for tree in trees)),
        loopback="ip link set lo up" if private else "",
        start=shlex.quote(box),
        kill=shlex.quote(str(cgroup.top(place) / "cgroup.kill")),  # the network's processes, and this one
        reboot=REBOOT_STATUS,
    )


def spawn(place: Place, command: list[str], descriptors: list[int]) -> subprocess.Popen[bytes]:
    """Start a process of the host's in the sandbox's cgroup, with which it ends; outside of the limits."""
    join = "; ".join(f"echo $$ > '{path}'" for path in cgroup.join_files(place, "keeper"))
    with place.console.open("ab") as console:
        return subprocess.Popen(
            ["/bin/sh", "-euc", f'{join}; exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            cwd="/",
            env=host.environment(),
            pass_fds=descriptors,
            start_new_session=True,
        )


def start_watchdog(place: Place, memory: int, tasks: int) -> None:
    """Start watchdog.py with its limits; 0 is none."""
    box = cgroup.top(place) / "box"
    spawn(place, [*THIS_PROGRAM, "_watch", str(box), str(memory), str(tasks)], [])


def cut_power(place: Place) -> None:
    """Shut the ext4 file system down without flushing its journal, so that unsynced data is lost as in a power cut."""
    keepers = cgroup.processes(cgroup.top(place) / "keeper")
    for pid in keepers:
        with suppress(OSError):
            mount = f"/proc/{pid}/root{place.disk_mount}"
            if os.stat(mount).st_dev == os.stat(place.disk_mount).st_dev:
                continue  # a process of the network, in the host's mount namespace
            descriptor = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", EXT4_GOING_FLAGS_NOLOGFLUSH))
            finally:
                os.close(descriptor)
            return
    raise SandboxError(f"found no mounted disk of {place.name!r}", "look at scripts/sandbox status")


def loop_devices(image: Path) -> list[str]:
    """Return the loop devices of `image`."""
    found: list[str] = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if path.read_text().strip().removesuffix(" (deleted)") == str(image):
                found.append(f"/dev/{path.parts[3]}")
    return found


def await_release(place: Place, timeout: float = 20) -> None:
    """Wait until the kernel has detached the loop device, shortly after the last process has ended."""
    deadline = time.monotonic() + timeout
    while devices := loop_devices(place.disk):
        if time.monotonic() > deadline:
            raise SandboxError(
                f"the disk of {place.name!r} is still in use: {', '.join(devices)}",
                "a process outside has it open; see 'losetup -l', then scripts/sandbox down again",
            )
        time.sleep(0.005)


def console_tail(place: Place, lines: int = 25) -> str:
    try:
        text = place.console.read_text(errors="replace")
    except FileNotFoundError:
        return "(no console log)"
    return "\n".join(text.rstrip().splitlines()[-lines:])
