"""The ``ExecStartPost=`` of a service with a port: asks until it is healthy, so that its unit is active only then.

Runs as ``/usr/libexec/hivematrix-helm/probe KEY=VALUE...`` beside every start, and competes with the service for the
processor. So the usual case is handled here with built-in modules: nothing listens yet, then a plain HTTP response has
a good status code. All other cases are those of `helmd.health.probe`, whose imports take three times as long as the
interpreter itself.
"""

import _socket
import os
import select
import time

from helmd.model.units.health_request import WORKS_BUT_LIMITS, accepts, code_of, is_complete, request_for

MAX_ANSWER = 1 << 16
FIRST_PAUSE = 0.025
ANSWERED_PAUSE = 0.5
"""Seconds between two requests to a service that is not healthy yet, but listens: each is a line in its log."""
SAID_AFTER = 5.0
"""After how many seconds a starting service's answer is printed that may never change, such as 404."""

_LOOPBACK = "127.0.0.1"
_HERE = ("localhost", _LOOPBACK, "0.0.0.0")  # noqa: S104 - nothing is bound to it
"""Hosts of URLs that are asked at the loopback address."""


class _Simple:
    """A check that can be made here: of a port, or by a plain request, at the loopback address."""

    def __init__(self, given: dict[str, str]) -> None:
        self.port, self.timeout = int(given["port"]), float(given.get("timeout", 2))
        self.host, self.target = _split(given["url"])
        self.expect = tuple(int(code) for code in given.get("expect", "").split(",") if code)
        self.port_alone = given["check"] == "port"
        # Node, among others, takes localhost for ::1 alone.
        self.addresses = (_LOOPBACK, "::1") if self.host.partition(":")[0] == "localhost" else (_LOOPBACK,)

    def attempt(self) -> bool | None:
        """Return whether it counts as started; None if nothing listens. Raises OSError."""
        deadline = time.monotonic() + self.timeout
        connection = self._connected(deadline)
        if connection is None:
            return None
        try:
            if self.port_alone:
                return True
            connection.sendall(request_for(self.target, self.host))
            received = b""
            while len(received) < MAX_ANSWER and not is_complete(received):
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                if not (chunk := connection.recv(16384)):
                    break
                received += chunk
        finally:
            connection.close()
        code = code_of(received)
        return code is not None and (code == WORKS_BUT_LIMITS or accepts(code, self.expect))

    def _connected(self, deadline: float) -> _socket.socket | None:
        for address in self.addresses:
            connection = _socket.socket(_socket.AF_INET6 if ":" in address else _socket.AF_INET, _socket.SOCK_STREAM)
            try:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                connection.connect((address, self.port))
            except ConnectionRefusedError:
                connection.close()
            except OSError:
                connection.close()
                if address == _LOOPBACK:
                    raise
            else:
                return connection
        return None


def _split(url: str) -> tuple[str, str]:
    """Return the host with its port and the target of a plain URL."""
    host, _, path = url.removeprefix("http://").partition("/")
    return host, f"/{path}"


def is_simple(given: dict[str, str]) -> bool:
    """Return whether a check is one that can be made here."""
    url = given.get("url", "")
    if given.get("check") not in ("http", "port") or not url.startswith("http://") or "#" in url or "realm" in given:
        return False
    host = _split(url)[0]
    return host.partition(":")[0] in _HERE and "@" not in host and int(given.get("port", 0)) > 0


def wait_simply(given: dict[str, str], main_pid: int, begun: float) -> int | None:
    """Ask until the service counts as started (0) or its main process ends (2).

    None if the answer is another than that nothing listens, or that stays so: the time is up, or it may be listening
    elsewhere. BEGUN is when the probe began (time.monotonic()).
    """
    check = _Simple(given)
    poll = select.poll()
    if main_pid:
        try:
            poll.register(os.pidfd_open(main_pid), select.POLLIN)
        except ProcessLookupError:
            return 2
    until = begun + min(SAID_AFTER, float(given["within"]))
    while True:
        try:
            started = check.attempt()
        except OSError:
            started = False
        if started:
            return 0
        if poll.poll(1000 * (FIRST_PAUSE if started is None else ANSWERED_PAUSE)):
            return 2
        if started is not None or time.monotonic() >= until:
            return None


def main(words: list[str]) -> int:
    """Return exit code 0 once it counts as started, 1 when it doesn't in time, 2 when its main process ended."""
    begun = time.monotonic()
    given = dict(word.split("=", 1) for word in words)
    if is_simple(given):
        ended = wait_simply(given, int(os.environ.get("MAINPID", "0")), begun)
        if ended is not None:
            return ended
    from helmd.health.probe import main as thorough

    return thorough(words, begun)
