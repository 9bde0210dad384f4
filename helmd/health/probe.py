"""The probe: checks the health of a service over its port.

As a program it is the ``ExecStartPost=`` of every unit that Helm renders: it asks until the answer is good, the main
process ends, or the time is up, so that a unit is active only once its service is healthy. It runs as
``/usr/libexec/hivematrix-helm/probe KEY=VALUE...`` and imports little, because it competes with the service for the
processor.
"""

import sys

if __name__ == "__main__":
    sys.path.insert(0, __file__.rpartition("/helmd/")[0])

import _thread
import os
import select
import socket
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from helmd.model.units.health import HEALTHY, UNHEALTHY, HealthVerdict, judge

MAX_ANSWER = 1 << 16
FIRST_PAUSE = 0.025
LATER_PAUSE = 0.1
EAGER = 15.0
"""For this long (seconds) a starting service is asked every FIRST_PAUSE, then every LATER_PAUSE."""


class Probe(NamedTuple):
    """What to ask. ``url`` is empty for a service that is healthy while its process lives; ``timeout`` is seconds."""

    check: str = "http"
    url: str = ""
    expect: tuple[int, ...] = ()
    realm: str = ""
    verify: bool = False
    timeout: float = 2.0

    @property
    def asked(self) -> str:
        """What is waited for, for people."""
        if self.check == "process":
            return "its process"
        if self.check == "port":
            return f"port {urlsplit(self.url).port}"
        return f"GET {self.url}"


class NoAnswerError(Exception):
    """There was no HTTP answer; the text says why."""


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
        """The addresses. Raises OSError as getaddrinfo does, TimeoutError at DEADLINE (time.monotonic())."""
        if not self._running.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        self._running.release()
        if isinstance(self._result, OSError):
            raise self._result
        return self._result


_lookups: dict[tuple[bytes, int], _Lookup] = {}
"""Lookups under way. A name has one at most, so that a resolver that hangs costs a thread a name, not one a probe."""
_lookups_lock = _thread.allocate_lock()


def _addresses(host: str, port: int, deadline: float) -> list[Any]:
    """What getaddrinfo(3) gives for HOST by DEADLINE. A numeric address is not looked up.

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


def run_probe(probe: Probe) -> HealthVerdict:
    """One check, bounded by the probe's timeout, the lookup of the host's name included. Blocks."""
    if probe.check == "process":
        return HealthVerdict(HEALTHY, "its process runs")
    try:
        if probe.check == "port":
            _connect(probe, time.monotonic() + probe.timeout).close()
            return HealthVerdict(HEALTHY, "its port is open")
        code, body = _get(probe)
    except NoAnswerError as problem:
        return HealthVerdict(UNHEALTHY, str(problem))
    return judge(code, body, probe.expect, probe.realm)


def _remaining(deadline: float) -> float:
    """Seconds until DEADLINE; never 0, which would make a socket non-blocking."""
    return max(0.001, deadline - time.monotonic())


def _connect(probe: Probe, deadline: float) -> socket.socket:
    parts = urlsplit(probe.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname or ""
    try:
        addresses = _addresses(host, port, deadline)
    except TimeoutError:
        raise NoAnswerError(f"the name {host} was not resolved within {probe.timeout:g} s") from None
    except OSError as problem:
        raise NoAnswerError(f"the name {host} can't be resolved ({problem.strerror or problem})") from None
    except UnicodeError:
        raise NoAnswerError("its URL has no valid host name") from None
    connection = _open(addresses, port, probe.timeout, deadline)
    if parts.scheme != "https":
        return connection
    import ssl

    if probe.verify:
        context = ssl.create_default_context()
    else:
        # Not the default context, which reads all of the machine's authorities first: 20 ms for nothing.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        connection.settimeout(_remaining(deadline))
        return context.wrap_socket(connection, server_hostname=parts.hostname)
    except TimeoutError:
        connection.close()
        raise NoAnswerError(f"no TLS connection within {probe.timeout:g} s") from None
    except (OSError, ValueError) as problem:
        connection.close()
        raise NoAnswerError(f"no TLS connection ({getattr(problem, 'reason', None) or problem})") from None


def _open(addresses: list[Any], port: int, timeout: float, deadline: float) -> socket.socket:
    """A connection to the first of ADDRESSES that accepts one; they share the time until DEADLINE."""
    reason = "it has no address"
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as problem:  # such as IPv6 on a host without it
            reason = f"no connection ({problem.strerror or problem})"
            continue
        try:
            connection.settimeout(_remaining(deadline) / (len(addresses) - index))
            connection.connect(address)
        except ConnectionRefusedError:
            reason = f"nothing listens on port {port}"
        except TimeoutError:
            reason = f"no connection within {timeout:g} s"
        except OSError as problem:
            reason = f"no connection ({problem.strerror or problem})"
        else:
            return connection
        connection.close()
    raise NoAnswerError(reason)


def _get(probe: Probe) -> tuple[int, bytes]:
    """Status code and the beginning of the body. HTTP/1.0: a plain body until the end (RFC 1945)."""
    deadline = time.monotonic() + probe.timeout
    parts = urlsplit(probe.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = (
        f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: application/json\r\nUser-Agent: helm-probe\r\n\r\n"
    )
    received = b""
    with _connect(probe, deadline) as connection:
        try:
            connection.settimeout(_remaining(deadline))
            connection.sendall(request.encode())
            while len(received) < MAX_ANSWER and not _complete(received):
                connection.settimeout(_remaining(deadline))
                if not (chunk := connection.recv(16384)):
                    break
                received += chunk
        except TimeoutError:
            raise NoAnswerError(f"no answer within {probe.timeout:g} s") from None
        except OSError as problem:
            if not received:
                raise NoAnswerError(f"the connection broke ({problem.strerror or problem})") from None
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit() or len(words[1]) != 3:
        raise NoAnswerError("what answers does not speak HTTP" if received else "the connection was closed unanswered")
    return int(words[1]), body


def _complete(received: bytes) -> bool:
    """Whether the announced length is there, so that a server that keeps the connection open is not waited for."""
    head, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
    return False


def wait(probe: Probe, main_pid: int, within: float, settle: float) -> HealthVerdict | None:
    """Asks until the service counts as started, or WITHIN seconds are up; None when its main process ends.

    A service without a port counts as started when it has lived for SETTLE seconds.
    """
    begun = time.monotonic()
    try:
        watched = os.pidfd_open(main_pid) if main_pid else -1
    except ProcessLookupError:
        return None
    poll = select.poll()
    if watched >= 0:
        poll.register(watched, select.POLLIN)
    while True:
        verdict = run_probe(probe)
        elapsed = time.monotonic() - begun
        good = verdict.started and (probe.check != "process" or elapsed >= settle)
        if good or elapsed >= within:
            return verdict
        if poll.poll(1000 * (FIRST_PAUSE if elapsed < EAGER else LATER_PAUSE)):
            return None


def main(words: list[str]) -> int:
    """Exit code 0 once it counts as started, 1 when it doesn't in time, 2 when its main process ended."""
    given = dict(word.split("=", 1) for word in words)
    expect = tuple(int(code) for code in given.get("expect", "").split(",") if code)
    probe = Probe(
        given["check"],
        given.get("url", ""),
        expect,
        given.get("realm", ""),
        given.get("verify") == "yes",
        float(given.get("timeout", 2)),
    )
    within = float(given["within"])
    main_pid = int(os.environ.get("MAINPID", "0"))
    verdict = wait(probe, main_pid, within, settle=float(given.get("settle", 0.1)))
    if verdict is None:
        return 2
    if verdict.started:
        return 0
    print(f"not healthy within {within:g} s: {probe.asked}: {verdict.sentence}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
