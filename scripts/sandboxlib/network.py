"""A sandbox's network: the host's own, or a private one.

`host`: services inside listen on the host's addresses; simple, but two sandboxes cannot use the same port.
`private`: a separate network namespace. Outgoing connections use slirp4netns, which needs no firewall rules or
forwarding on the host. Published ports are forwarded from the host's 127.0.0.1 to the sandbox's 127.0.0.1, where Helm's
services listen. Both processes are in the sandbox's cgroup and end with it.
"""

import os
import socket

from . import keeper
from .place import Place, SandboxError
from .settings import Settings

DEVICE = "tap0"
SLIRP_RESOLVER = "10.0.2.3"  # slirp4netns(1): forwards to the host's name servers
LOOPBACK = "127.0.0.1"


def parse_publish(words: list[str]) -> tuple[tuple[int, int], ...]:
    """Parse words of the form `HOST:SANDBOX` or `PORT`; return pairs of port numbers."""
    pairs: list[tuple[int, int]] = []
    for word in words:
        outside, _, inside = word.partition(":")
        try:
            pair = (int(outside), int(inside or outside))
        except ValueError:
            pair = (0, 0)
        if not all(0 < port < 65536 for port in pair):
            raise SandboxError(
                f"--publish {word}: not a port or pair of ports", "use HOST:SANDBOX, for example 15004:5004"
            )
        pairs.append(pair)
    return tuple(pairs)


def resolv_conf(settings: Settings, of_host: str) -> str:
    """Return resolv.conf(5) for the sandbox. A private network can't reach a name server on the host's loopback."""
    if settings.network != "private":
        return of_host
    kept = [line for line in of_host.splitlines() if line.split()[:1] in (["search"], ["domain"], ["options"])]
    return "\n".join([f"nameserver {SLIRP_RESOLVER}", *kept]) + "\n"


def start(place: Place, settings: Settings, pid: int) -> None:
    """Connect the private network of the keeper `pid` and publish its ports. No-op for the host's network."""
    if settings.network != "private":
        return
    listeners = _listen(settings.publish)
    try:
        _start_slirp(place, pid)
        if listeners:
            _start_forwarder(place, settings, pid, listeners)
    finally:
        for listener in listeners:
            listener.close()


def _listen(publish: tuple[tuple[int, int], ...]) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    for outside, _ in publish:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listeners.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, outside))
            listener.listen(128)
        except OSError as error:
            for opened in listeners:
                opened.close()
            raise SandboxError(
                f"cannot publish on port {outside} of the host: {error.strerror}",
                f"find its user: ss -ltnp 'sport = :{outside}'; or publish another",
            ) from None
    return listeners


def _start_slirp(place: Place, pid: int) -> None:
    ready, announce = os.pipe()
    try:
        keeper.spawn(
            place,
            [
                "slirp4netns",
                "--configure",
                "--mtu=65520",
                "--disable-host-loopback",
                "--ready-fd",
                str(announce),
                "--netns-type=path",
                f"/proc/{pid}/ns/net",
                DEVICE,
            ],
            [announce],
        )
    finally:
        os.close(announce)
    with os.fdopen(ready, "rb") as reader:
        if reader.read(1) != b"1":
            raise SandboxError(
                "slirp4netns could not connect the private network",
                f"see {place.console}; or share the host's network: --network host",
            )


def _start_forwarder(place: Place, settings: Settings, pid: int, listeners: list[socket.socket]) -> None:
    inside = [str(port) for _, port in settings.publish]
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pairs = [f"{listener.fileno()}:{port}" for listener, port in zip(listeners, inside, strict=True)]
        keeper.spawn(
            place,
            [*keeper.THIS_PROGRAM, "_forward", str(namespace), *pairs],
            [namespace, *(listener.fileno() for listener in listeners)],
        )
    finally:
        os.close(namespace)
