"""Where a service of this host is asked: at the addresses of its URL that are addresses of this host."""

import _thread
import socket
import time
from typing import Any

LOOPBACK = "127.0.0.1"
EVERY = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - nothing is bound to them
"""The addresses that stand for all of this host, with those at which a service that listens there is asked."""
_REMEMBERED = 10.0
"""Seconds for which a name's addresses are used again: a starting service is asked many times a second."""
_LOOKUP = 0.5
"""Seconds after which a name whose lookup takes longer is asked at the loopback address."""


class _Lookup:
    """One getaddrinfo(3) call in a thread of its own, since that function has no time limit.

    Not `threading`, which would be imported for nothing else. Such a thread keeps no process from exiting.
    """

    def __init__(self, host: bytes, port: int) -> None:
        self._host, self._port = host, port
        self._result: list[Any] | OSError = []
        self._running = _thread.allocate_lock()
        self._running.acquire()
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError as problem:
            raise OSError(str(problem)) from None

    def _run(self) -> None:
        try:
            self._result = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as problem:
            self._result = problem
        finally:
            with _lookups_lock:
                _lookups.pop((self._host, self._port), None)
            self._running.release()

    def result(self, deadline: float) -> list[Any]:
        """Return the addresses. Raises OSError as getaddrinfo does, TimeoutError at DEADLINE (time.monotonic())."""
        if not self._running.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        self._running.release()
        if isinstance(self._result, OSError):
            raise self._result
        return self._result


_lookups: dict[tuple[bytes, int], _Lookup] = {}
"""Lookups under way. A name has one at most, so that a resolver that hangs costs a thread a name, not one a probe."""
_lookups_lock = _thread.allocate_lock()
_local: dict[tuple[str, int], tuple[float, list[Any]]] = {}
"""Addresses of this host by name and port, and when they were looked up (time.monotonic())."""


def addresses(host: str, port: int, deadline: float) -> list[Any]:
    """Return what getaddrinfo(3) gives for HOST by DEADLINE. A numeric address is not looked up.

    Raises OSError, TimeoutError, UnicodeError.
    """
    # As bytes: for text Python imports its codec for international names, which our names never need.
    name = host.encode("ascii")
    try:
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        with _lookups_lock:
            lookup = _lookups.get((name, port))
            if lookup is None:
                lookup = _lookups[name, port] = _Lookup(name, port)
    return lookup.result(deadline)


def local_addresses(host: str, port: int, deadline: float) -> list[Any]:
    """Return where a service of this host whose URL has HOST is asked, as getaddrinfo(3) gives addresses.

    A numeric address is that one, or the loopback one if it stands for all (0.0.0.0, ::). A name is what it resolves to
    on this host, then 127.0.0.1: its other addresses are those of a proxy or of a router in front of the service.
    """
    loopback = addresses(LOOPBACK, port, deadline)
    if host in ("", "localhost"):
        return loopback
    if is_numeric(host):
        return addresses(EVERY.get(host, host), port, deadline)
    now = time.monotonic()
    at, found = _local.get((host, port), (-_REMEMBERED, []))
    if now - at >= _REMEMBERED:
        try:
            found = [each for each in addresses(host, port, min(deadline, now + _LOOKUP)) if _is_local(each)]
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            found = []
        _local[host, port] = now, found
    return [*found, *(each for each in loopback if each not in found)]


def is_numeric(host: str) -> bool:
    """Return whether HOST is an IPv4 or IPv6 address rather than a name."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def _is_local(info: tuple[Any, ...]) -> bool:
    """Return whether an address is one of this host: a socket can be bound to it."""
    family, kind, protocol, _, address = info
    try:
        with socket.socket(family, kind, protocol) as tried:
            tried.bind((address[0], 0, *address[2:]))
    except OSError:
        return False
    return True
