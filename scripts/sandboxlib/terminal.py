"""An interactive shell on a terminal of the sandbox, so that job control and tty(1) work."""

import fcntl
import os
import pty
import select
import signal
import sys
import termios
import tty
from contextlib import suppress

from .enter import CLONE_NEWNS, CLONE_NEWPID, Entry, Target, become, execute, setns


def shell(entry: Entry, target: Target) -> int:
    """Run a login shell; return its exit status. If stdin is not a terminal, the shell reads commands from it."""
    if not (os.isatty(0) and os.isatty(1)):
        return execute(entry, target)
    master, slave = _open_inside(entry)
    _copy_size(master)
    setns(entry.pid, CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        os.close(master)
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for descriptor in (0, 1, 2):
            os.dup2(slave, descriptor)
        become(entry, target, stay_with_parent=True)
    os.close(slave)
    signal.signal(signal.SIGWINCH, lambda *_: _copy_size(master))
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        _relay(master)
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _open_inside(entry: Entry) -> tuple[int, int]:
    """Open a terminal in the sandbox's devpts; return a child process opens it inside and sends both ends over a
    socket.
    """
    import socket

    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            setns(entry.pid, CLONE_NEWNS)
            os.fchdir(entry.root)
            os.chroot(".")
            socket.send_fds(theirs, [b"t"], list(pty.openpty()))
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 2)
    os.waitpid(child, 0)
    if len(descriptors) != 2:
        raise OSError("could not open a terminal in the sandbox")
    return descriptors[0], descriptors[1]


def _copy_size(master: int) -> None:
    with suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def _relay(master: int) -> None:
    poll = select.poll()
    for descriptor in (0, master):
        poll.register(descriptor, select.POLLIN)
    while True:
        readable = [descriptor for descriptor, _ in poll.poll()]
        if master in readable:
            try:
                block = os.read(master, 65536)
            except OSError:  # EIO: no process has the terminal open any more
                return
            if not block:
                return
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
        if 0 in readable:
            block = os.read(0, 65536)
            if not block:
                return
            os.write(master, block)
