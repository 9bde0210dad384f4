#!/usr/bin/python3
"""Tries operations that a hardened service must not be able to do, and reports the results.

Prints one line of JSON, `{"can": {PROBE: {"allowed": bool, "detail": text}}, "status": {…}}`. With PORT it then serves
the same at http://127.0.0.1:PORT/ (and is healthy at /health) until SIGTERM; without, it exits with 0.

OTHER_HOME: the home of another account to list (default: every other directory in /home, and /root).
OTHER_FILE: one file of another account to read (default: none).
SETUID_PROGRAM: a copy of id(1) that belongs to root and has the setuid bit (default: none).

It undoes successful operations, and refuses to run as root, who may do all of them. Each probe runs in a child process,
so that a system call filter that kills ends only the probe. Needs only the standard library.
"""

import ctypes
import json
import mmap
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CLONE_NEWUSER = 0x10000000  # linux/sched.h
CLONE_NEWNET = 0x40000000
STATUS_FIELDS = ("Uid", "NoNewPrivs", "Seccomp", "CapEff", "CapBnd", "Umask")

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def write_into(directory: str) -> str:
    """Create and remove a file in a directory."""
    descriptor, path = tempfile.mkstemp(prefix=".helm-sandboxed-", dir=directory)
    os.write(descriptor, b"x")
    os.close(descriptor)
    Path(path).unlink()
    return path


def other_homes() -> list[Path]:
    if named := os.environ.get("OTHER_HOME"):
        return [Path(named)]
    own = Path(os.path.expanduser("~"))
    found = sorted(Path("/home").iterdir()) if Path("/home").is_dir() else []
    return [path for path in (*found, Path("/root")) if path.is_dir() and path != own]


def read_other_home() -> str:
    """List other accounts' homes. A home that appears empty counts as hidden."""
    seen, refusals = [], []
    for home in other_homes():
        try:
            seen += [f"{home}/{name}" for name in os.listdir(home)]
        except OSError as error:
            refusals.append(str(error))
    if not seen:
        raise PermissionError("; ".join(refusals) or "no other account's files are visible")
    return ", ".join(seen[:5])


def read_other_file() -> str:
    path = os.environ.get("OTHER_FILE")
    if not path:
        raise FileNotFoundError("OTHER_FILE is not set")
    return f"{len(Path(path).read_bytes())} bytes of {path}"


def see_other_processes() -> str:
    """Find processes of other users in /proc (ProtectProc=invisible hides them)."""
    seen = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.exists() and entry.stat().st_uid != os.getuid():
            seen.append(entry.name)
    if not seen:
        raise PermissionError("only own processes are visible")
    return f"{len(seen)} of other users, pid {seen[0]} among them"


def read_other_environ() -> str:
    for entry in sorted(Path("/proc").iterdir()):
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), os.getppid()):
            try:
                return f"{len((entry / 'environ').read_bytes())} bytes of {entry}/environ"
            except OSError:
                continue
    raise PermissionError("no other process's environment can be read")


def read_journal() -> str:
    """Find a line of another unit of the account in files of the journal."""
    own = Path("/proc/self/cgroup").read_text().strip().rpartition("/")[2].encode()
    for directory in ("/var/log/journal", "/run/log/journal"):
        for path in Path(directory).glob("*/*.journal") if os.access(directory, os.R_OK) else ():
            if os.access(path, os.R_OK):
                units = set(re.findall(rb"_SYSTEMD_USER_UNIT=([\w@.-]+)", path.read_bytes()))
                if others := units - {own}:
                    return f"lines of {len(others)} other units, {min(others).decode()} among them"
    raise PermissionError("no line of another unit can be read")


def send_to_journal() -> str:
    """Send an entry to journald's own socket (systemd-journald.service(8)); its message names the unit's profile."""
    entry = f"MESSAGE=sent by {os.environ.get('HARDENING', 'sandboxed')}\nPRIORITY=6\n".encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.sendto(entry, "/run/systemd/journal/socket")
    # journald reads of the sender in /proc whose entry it is.
    time.sleep(2)
    return "sent"


def see_disks() -> str:
    """Find block devices and raw memory in /dev, such as /dev/sda (PrivateDevices hides them)."""
    raw = [entry.path for entry in os.scandir("/dev") if is_raw_device(entry)]
    if not raw:
        raise FileNotFoundError("no block device, mem, kmsg or port in /dev")
    return ", ".join(sorted(raw)[:8])


def is_raw_device(entry: os.DirEntry[str]) -> bool:
    mode = entry.stat(follow_symlinks=False).st_mode
    return stat.S_ISBLK(mode) or (entry.name in ("mem", "kmsg", "port", "kmem") and stat.S_ISCHR(mode))


def gain_rights() -> str:
    """Run SETUID_PROGRAM, a copy of id(1) that belongs to root and has the setuid bit."""
    program = os.environ.get("SETUID_PROGRAM")
    if not program:
        raise FileNotFoundError("SETUID_PROGRAM is not set")
    shown = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    if "euid=0" not in shown:
        raise PermissionError(f"it ran as {shown}")
    return shown


def open_rare_socket() -> str:
    """Open a socket of one of the families that hardly any program needs, and any process may use."""
    refusals = []
    for name in ("AF_VSOCK", "AF_ALG", "AF_TIPC", "AF_RDS", "AF_CAN"):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            try:
                return f"{name}: {open_socket(getattr(socket, name), kind)}"
            except OSError as error:
                refusals.append(f"{name}: {error}")
    raise PermissionError("; ".join(refusals))


def call_32_bit() -> str:
    """Make a system call of the 32-bit interface (getpid) from code in a file."""
    with tempfile.NamedTemporaryFile(dir=".") as file:
        file.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")
        file.flush()
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        address = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, file.fileno(), 0)
    if ctypes.CFUNCTYPE(ctypes.c_int)(address)() != os.getpid():
        raise PermissionError("it has no effect")
    return "called getpid"


def write_kernel_setting() -> str:
    path = Path("/proc/sys/kernel/domainname")
    path.write_bytes(path.read_bytes())
    return str(path)


def write_cgroup() -> str:
    path = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    made = path / "helm-sandboxed"
    made.mkdir()
    made.rmdir()
    return str(made)


def listen_on_loopback() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname(), timeout=2):
            return "connected to itself on 127.0.0.1"


def open_socket(family: int, kind: int) -> str:
    with socket.socket(family, kind):
        return "opened"


def set_setuid_bit() -> str:
    with tempfile.NamedTemporaryFile(dir=".") as file:
        os.chmod(file.name, 0o4755)
        if not os.stat(file.name).st_mode & stat.S_ISUID:
            raise PermissionError("chmod succeeded without effect")
        return "chmod 4755"


def map_writable_code() -> str:
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
        return "mapped a page writable and executable"


def unshare(flag: int) -> str:
    checked(libc.unshare(flag))
    return "made a namespace"


def mount() -> str:
    checked(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
    checked(libc.umount2(b"/mnt", 0))
    return "mounted a tmpfs on /mnt"


def set_clock() -> str:
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))
    return "set the clock"


def set_hostname() -> str:
    socket.sethostname(socket.gethostname())
    return "set the host name"


def trace() -> str:
    checked(libc.ptrace(0, 0, 0, 0))  # PTRACE_TRACEME
    return "may be traced by its parent"


def take_a_processor() -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "runs with real-time priority"


def load_module() -> str:
    checked(libc.init_module(b"", 0, b""))
    return "loaded"


def change_personality() -> str:
    checked(libc.personality(0x0040000))  # ADDR_NO_RANDOMIZE
    return "switched off address randomisation"


PROBES: dict[str, Callable[[], str]] = {
    "write_usr": lambda: write_into("/usr"),
    "write_etc": lambda: write_into("/etc"),
    # By the user database: HOME may be the service's own.
    "write_home": lambda: write_into(pwd.getpwuid(os.getuid()).pw_dir),
    "write_own_directory": lambda: write_into("."),
    "write_tmp": lambda: write_into("/tmp"),
    "read_other_home": read_other_home,
    "read_other_file": read_other_file,
    "read_shadow": lambda: f"{len(Path('/etc/shadow').read_bytes())} bytes",
    "see_other_processes": see_other_processes,
    "read_other_environ": read_other_environ,
    "read_journal": read_journal,
    "send_to_journal": send_to_journal,
    "see_disks": see_disks,
    "write_kernel_setting": write_kernel_setting,
    "write_cgroup": write_cgroup,
    "listen_on_loopback": listen_on_loopback,
    "unix_socket": lambda: open_socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "netlink_socket": lambda: open_socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "packet_socket": lambda: open_socket(socket.AF_PACKET, socket.SOCK_RAW),
    "set_setuid_bit": set_setuid_bit,
    "map_writable_code": map_writable_code,
    "unshare_user": lambda: unshare(CLONE_NEWUSER),
    "unshare_network": lambda: unshare(CLONE_NEWUSER | CLONE_NEWNET),
    "mount": mount,
    "set_clock": set_clock,
    "set_hostname": set_hostname,
    "change_personality": change_personality,
    "gain_rights": gain_rights,
    "rare_socket": open_rare_socket,
    "call_32_bit": call_32_bit,
    "trace": trace,
    "take_a_processor": take_a_processor,
    "load_module": load_module,
}


def attempt(probe: Callable[[], str]) -> dict[str, object]:
    """Run `probe` in a child process: allowed if it returns, not if it raises OSError or is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            outcome: dict[str, object] = {"allowed": True, "detail": probe()}
        except OSError as error:
            outcome = {"allowed": False, "detail": str(error)}
        os.write(writing, json.dumps(outcome).encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"allowed": False, "detail": f"killed by {signal.Signals(os.WTERMSIG(status)).name}"}
    result: dict[str, object] = json.loads(answer)
    return result


def own_status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: fields[name].strip() for name in STATUS_FIELDS if name in fields}


def serve(report: bytes, port: int) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"status": "healthy", "service": "sandboxed"}' if self.path == "/health" else report
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()


def main() -> None:
    if os.getuid() == 0:
        sys.exit("sandboxed: run me as an ordinary account; root may do all of this")
    report = json.dumps({"can": {name: attempt(probe) for name, probe in PROBES.items()}, "status": own_status()})
    print(report, flush=True)
    if port := os.environ.get("PORT"):
        serve(report.encode(), int(port))


if __name__ == "__main__":
    main()
