"""Whether a TCP port can be bound. Imports nothing but the built-in module of sockets, since every start asks this."""

import _socket
import errno


def is_bound(address: str, port: int) -> bool:
    """Return whether bind(2) to a numeric ADDRESS fails since PORT is in use there.

    It is tried: only the kernel knows of wildcard addresses, IPV6_V6ONLY and SO_REUSEPORT of the others. With the
    latter set here as well, a shared port is not in use.
    """
    tried = None
    try:
        tried = _socket.socket(_socket.AF_INET6 if ":" in address else _socket.AF_INET, _socket.SOCK_STREAM)
        tried.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        tried.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
        tried.bind((address, port))
    except OSError as problem:
        return problem.errno == errno.EADDRINUSE
    finally:
        if tried is not None:
            tried.close()
    return False
