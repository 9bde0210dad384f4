"""The probe: checks the health of a service over its port.

`helmd.health.start_probe` calls it for what is not the usual case: it asks until the answer is good, the main process
ends, or the time is up, so that a unit is active only once its service is healthy. It imports little, because it
competes with the service for the processor. Units that Helm 1.0 has rendered run it by its path.
"""

import sys

if __name__ == "__main__":
    sys.path.insert(0, __file__.rpartition("/helmd/")[0])

import os
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from helmd.health.address import LOOPBACK, addresses, local_addresses
from helmd.health.control_group import own_control_group
from helmd.health.listeners import unit_listeners
from helmd.health.start_probe import ANSWERED_PAUSE, FIRST_PAUSE, MAX_ANSWER, SAID_AFTER
from helmd.model.units.health import HEALTHY, NOT_HEALTHY, NOT_YET, PROCESS_RUNS, UNHEALTHY, HealthVerdict, Probe, judge
from helmd.model.units.health_request import code_of, is_complete, request_for, response_header

if TYPE_CHECKING:
    import ssl

LATER_PAUSE = 0.1
EAGER = 15.0
"""For this long (seconds) a port on which nothing listens is asked every FIRST_PAUSE, then every LATER_PAUSE."""
MOST_SAID = 5
"""How many different ones are printed."""
NOTHING_LISTENS = "nothing listens on"
UNKNOWN_REALM = "helm-checks-the-database"
"""A realm that does not exist: Keycloak has no such thing in its cache, so it asks its database each time."""


class NoAnswerError(Exception):
    """There was no HTTP answer; the text says why. ``listening`` is False when nothing listens on the port."""

    def __init__(self, sentence: str, listening: bool = True) -> None:
        super().__init__(sentence)
        self.listening = listening


class _Answer(NamedTuple):
    """An HTTP response: its status code, its Location header, and the beginning of its body."""

    code: int
    location: str
    body: bytes


def run_probe(probe: Probe) -> HealthVerdict:
    """Make one check, bounded by the probe's timeout, the lookup of the host's name included. Blocks."""
    return _attempt(probe)[0]


def _attempt(probe: Probe) -> tuple[HealthVerdict, bool]:
    """Make one check; return its verdict, and whether anything listens on the port."""
    if probe.check == "process":
        return PROCESS_RUNS, True
    deadline = time.monotonic() + probe.timeout
    try:
        if probe.check == "port":
            _connect(probe, deadline).close()
            return HealthVerdict(HEALTHY, "its port is open"), True
        answer = _get(probe, deadline)
        verdict = judge(answer.code, answer.body, probe.expect, probe.realm, answer.location, probe.url, probe.requires)
        if probe.realm and verdict.state == HEALTHY:
            verdict = _with_database(probe, verdict, deadline)
        if answer.code == 400 and verdict.state == UNHEALTHY and not _secure(probe) and _speaks_tls(probe, deadline):
            verdict = HealthVerdict(UNHEALTHY, f"answered 400 {_WANTS_TLS}")
    except NoAnswerError as problem:
        return HealthVerdict(UNHEALTHY, str(problem)), problem.listening
    return verdict, True


_WANTS_TLS = 'because it speaks TLS on this port: set url = "https://..."'


def _with_database(probe: Probe, verdict: HealthVerdict, deadline: float) -> HealthVerdict:
    """Return VERDICT on Keycloak, unless its database is gone: realms that exist are answered from a cache."""
    unknown = probe._replace(url=probe.url.replace(f"/realms/{probe.realm}/", f"/realms/{UNKNOWN_REALM}/"))
    try:
        code = _get(unknown, deadline).code
        said = "" if code < 500 else f"answered {code}"
    except NoAnswerError as problem:
        said = str(problem)
    if not said:
        return verdict
    return HealthVerdict(
        UNHEALTHY, f"realm {probe.realm} is available from its cache alone: its database fails ({said})"
    )


def _secure(probe: Probe) -> bool:
    return probe.url.startswith("https:")


def _remaining(deadline: float) -> float:
    """Return seconds until DEADLINE; never 0, which would make a socket non-blocking."""
    return max(0.001, deadline - time.monotonic())


def _connect(probe: Probe, deadline: float) -> socket.socket:
    """Return a connection, with TLS for https. Raises NoAnswerError."""
    connection = _open(probe, deadline)
    if not _secure(probe):
        return connection
    import ssl

    # The default context reads all of the machine's authorities first: 20 ms for nothing.
    context = ssl.create_default_context() if probe.verify else unverified_context()
    try:
        connection.settimeout(_remaining(deadline))
        return context.wrap_socket(connection, server_hostname=urlsplit(probe.url).hostname)
    except TimeoutError:
        connection.close()
        raise NoAnswerError(f"no TLS connection within {probe.timeout:g} s") from None
    except (OSError, ValueError) as problem:
        connection.close()
        reason = getattr(problem, "reason", None) or problem
        if not isinstance(problem, ssl.SSLCertVerificationError) and _speaks_http(probe, deadline):
            reason = 'it speaks plain HTTP on this port: set url = "http://..."'
        raise NoAnswerError(f"no TLS connection ({reason})") from None


def unverified_context() -> "ssl.SSLContext":
    """Return a context for TLS clients that accepts any certificate."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _speaks_tls(probe: Probe, deadline: float) -> bool:
    """Return whether the port of a plain http URL takes a TLS handshake."""
    try:
        connection = _open(probe, deadline)
    except NoAnswerError:
        return False
    try:
        connection.settimeout(_remaining(deadline))
        unverified_context().wrap_socket(connection, server_hostname=urlsplit(probe.url).hostname).close()
    except (OSError, ValueError):
        return False
    finally:
        connection.close()
    return True


def _speaks_http(probe: Probe, deadline: float) -> bool:
    """Return whether the port of an https URL answers a plain request."""
    plain = probe._replace(url="http" + probe.url.removeprefix("https"), port=probe.asked_port)
    try:
        _get(plain, deadline)
    except NoAnswerError:
        return False
    return True


def _open(probe: Probe, deadline: float) -> socket.socket:
    """Return a connection to one of the probe's addresses. Raises NoAnswerError."""
    host, port = urlsplit(probe.url).hostname or "", probe.asked_port
    try:
        found = local_addresses(host, port, deadline) if probe.port else addresses(host, port, deadline)
    except TimeoutError:
        raise NoAnswerError(f"the name {host} was not resolved within {probe.timeout:g} s") from None
    except OSError as problem:
        raise NoAnswerError(f"the name {host} can't be resolved ({problem.strerror or problem})") from None
    except UnicodeError:
        raise NoAnswerError("its URL has no valid host name") from None
    try:
        return _first_that_connects(found, probe, deadline)
    except NoAnswerError as problem:
        if problem.listening or host != "localhost" or not probe.port:
            raise
        # Node, among others, takes localhost for ::1 alone.
        try:
            return _first_that_connects(addresses("::1", port, deadline), probe, deadline)
        except (NoAnswerError, OSError):
            raise problem from None


def _first_that_connects(found: list[Any], probe: Probe, deadline: float) -> socket.socket:
    """Return a connection to the first address in FOUND that accepts one; they share the time. Raises NoAnswerError."""
    reason, listening = "it has no address", True
    for index, (family, kind, protocol, _, address) in enumerate(found):
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as problem:  # such as IPv6 on a host without it
            reason = f"no connection ({problem.strerror or problem})"
            continue
        try:
            connection.settimeout(_remaining(deadline) / (len(found) - index))
            connection.connect(address)
        except ConnectionRefusedError:
            reason, listening = f"{NOTHING_LISTENS} {_shown(address)}", False
        except TimeoutError:
            reason = f"no connection within {probe.timeout:g} s"
        except OSError as problem:
            reason = f"no connection ({problem.strerror or problem})"
        else:
            return connection
        connection.close()
    raise NoAnswerError(reason, listening)


def _shown(address: tuple[Any, ...]) -> str:
    """Return a socket address as text; the port alone for the usual address."""
    host, port = address[:2]
    if host == LOOPBACK:
        return f"port {port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _get(probe: Probe, deadline: float) -> _Answer:
    """Return the response. Raises NoAnswerError."""
    parts = urlsplit(probe.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    received, broken = b"", ""
    with _connect(probe, deadline) as connection:
        try:
            connection.settimeout(_remaining(deadline))
            connection.sendall(request_for(target, parts.netloc))
            while len(received) < MAX_ANSWER and not is_complete(received):
                connection.settimeout(_remaining(deadline))
                if not (chunk := connection.recv(16384)):
                    break
                received += chunk
        except TimeoutError:
            raise NoAnswerError(f"no answer within {probe.timeout:g} s") from None
        except OSError as problem:
            broken = f"the connection broke ({problem.strerror or problem})"
    if (code := code_of(received)) is not None:
        head, _, body = received.partition(b"\r\n\r\n")
        return _Answer(code, response_header(head, b"location"), body)
    if not _secure(probe) and _speaks_tls(probe, deadline):
        raise NoAnswerError(f"no HTTP answer {_WANTS_TLS}")
    if received:
        raise NoAnswerError("what answers does not speak HTTP")
    raise NoAnswerError(broken or "the connection was closed unanswered")


def wait(
    probe: Probe,
    main_pid: int,
    within: float,
    settle: float,
    say: Callable[[str], object] = print,
    began: float | None = None,
) -> HealthVerdict | None:
    """Ask until the service counts as started, or WITHIN seconds are up since now, or since BEGAN (time.monotonic());
    return None when its main process ends.

    A service without a port counts as started when it has lived for SETTLE seconds. SAY is called with what keeps it
    from being healthy after SAID_AFTER seconds, and when that changes; not while nothing of it listens yet.
    """
    begun = time.monotonic() if began is None else began
    try:
        watched = os.pidfd_open(main_pid) if main_pid else -1
    except ProcessLookupError:
        return None
    poll = select.poll()
    if watched >= 0:
        poll.register(watched, select.POLLIN)
    if probe.check == "process":
        return None if poll.poll(1000 * settle) else run_probe(probe)
    printed: set[str] = set()
    while True:
        verdict, listening = _attempt(probe)
        elapsed = time.monotonic() - begun
        if verdict.started:
            return verdict
        over = elapsed >= within
        if over or (elapsed >= SAID_AFTER and verdict.sentence not in printed):
            where = elsewhere(probe, listening, own_control_group())
            if over:
                return HealthVerdict(verdict.state, verdict.sentence + where)
            if (listening or where) and len(printed) < MOST_SAID:
                printed.add(verdict.sentence)
                say(f"{NOT_YET} after {elapsed:.0f} s: {probe.asked}: {verdict.sentence}{where}")
        pause = ANSWERED_PAUSE if listening else FIRST_PAUSE if elapsed < EAGER else LATER_PAUSE
        if poll.poll(1000 * pause):
            return None


def elsewhere(probe: Probe, listening: bool, control_group: str) -> str:
    """Return where the processes of a control group listen, if nothing LISTENING is where PROBE asks; else empty."""
    if listening or not control_group or not (found := unit_listeners(control_group)):
        return ""
    shown = ", ".join(map(str, found[:4]))
    if any(each.port == probe.port for each in found):
        return f"; it listens on {shown}: set url to that address, or make it listen where url says"
    return f"; it listens on {shown}: set port to that one, or make it listen on {probe.port}"


def main(words: list[str], began: float | None = None) -> int:
    """Exit code 0 once it counts as started, 1 when it doesn't in time, 2 when its main process ended.

    The time limit counts from BEGAN (time.monotonic()), by default from now.
    """
    given = dict(word.split("=", 1) for word in words)
    expect = tuple(int(code) for code in given.get("expect", "").split(",") if code)
    probe = Probe(
        given["check"],
        given.get("url", ""),
        expect,
        given.get("realm", ""),
        given.get("verify") == "yes",
        float(given.get("timeout", 2)),
        int(given.get("port", 0)),
    )
    within = float(given["within"])
    main_pid = int(os.environ.get("MAINPID", "0"))

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    verdict = wait(probe, main_pid, within, float(given.get("settle", 0.1)), say, began)
    if verdict is None:
        return 2
    if verdict.started:
        return 0
    say(f"{NOT_HEALTHY} {within:g} s: {probe.asked}: {verdict.sentence}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
