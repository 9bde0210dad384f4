"""`scripts/sandbox _serve`: runs this program for a caller with many commands, each in a fork of one small process.

Python starts once instead of each time, which takes longer than most commands. The caller has the other end of a
socket (SOCK_SEQPACKET). Each message has five descriptors: a file with the arguments as JSON; stdin, stdout and stderr;
and a pipe to which the process id is written and then the exit status, a line each. It ends with the caller's socket.
"""

import array
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

DESCRIPTORS = 5


def serve(number: int, run: Callable[[list[str]], int]) -> NoReturn:
    """Run RUN with each caller's arguments; the socket is descriptor NUMBER."""
    if os.fork():
        # The caller has no child of it to wait for.
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is forked here
    calls = socket.socket(fileno=number)
    while given := _received(calls):
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            calls.close()
            _perform(given, run)
        for descriptor in given:
            os.close(descriptor)
    os._exit(0)


def _received(calls: socket.socket) -> list[int]:
    """Return the descriptors of the next message; none at the end."""
    found = array.array("i")
    data, ancillary, _, _ = calls.recvmsg(1, socket.CMSG_LEN(DESCRIPTORS * found.itemsize), socket.MSG_CMSG_CLOEXEC)
    for _, _, content in ancillary:
        found.frombytes(content)
    return list(found) if data else []


def _perform(given: list[int], run: Callable[[list[str]], int]) -> NoReturn:
    arguments, *streams, report = given
    status = 1
    try:
        os.write(report, b"%d\n" % os.getpid())
        with open(arguments, "rb") as file:
            file.seek(0)
            words = json.load(file)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        status = run(words)
    finally:
        sys.stdout.flush()
        os.write(report, b"%d\n" % status)
    os._exit(status)
