"""TCP ports for programs that have to be given one before they listen."""

import itertools
import os
import random
import socket

_FIRST, _EACH = 20_000, 1_500
"""Below the ports that the kernel gives (ip_local_port_range begins at 32768): nobody gets one of these by chance."""
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw7").removeprefix("gw")) % 8
_turn = itertools.count(random.randrange(_EACH))


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens. Each process of pytest-xdist has ports of its own."""
    for number in itertools.islice(_turn, _EACH):
        port = _FIRST + _WORKER * _EACH + number % _EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
