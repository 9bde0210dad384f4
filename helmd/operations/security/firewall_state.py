"""Queries the state of the firewall from the package's service."""

import socket
from pathlib import Path

from helmd.model.security.firewall_state import FirewallState, firewall_state_of

FIREWALL_SOCKET = Path("/run/hivematrix-firewall.sock")
"""The socket of the service (packaging/systemd/system/hivematrix-firewall.socket)."""

_SECONDS = 10.0
_LARGEST = 1 << 20


def firewall_state(path: Path = FIREWALL_SOCKET) -> FirewallState:
    """Return the state of the firewall; unknown, with the reason, if the service is not available.

    It blocks for half a second, and for 10 s at most.
    """
    reply = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(str(path))
            while received := connection.recv(1 << 16):
                reply += received
                if len(reply) > _LARGEST:
                    return FirewallState(f"the reply of {path} does not end")
    except TimeoutError:
        return FirewallState(
            f"{path} did not answer within {_SECONDS:g} s: see systemctl status hivematrix-firewall.socket"
        )
    except OSError as error:
        return FirewallState(
            f"the rules can't be read without hivematrix-firewall.socket ({path}: {error.strerror}): "
            "as root, run systemctl enable --now hivematrix-firewall.socket"
        )
    if not reply:
        return FirewallState("hivematrix-firewall.socket answered nothing: see journalctl -u 'hivematrix-firewall@*'")
    return firewall_state_of(reply)
