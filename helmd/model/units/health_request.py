"""The HTTP request of a health check, and what its response begins with.

Imports nothing: the program that runs beside every start (`helmd.health.start_probe`) needs no more of a response.
"""

USER_AGENT = "HiveMatrix-Helm/health"
"""Names Helm's health checks in the access logs of services, where they are recognized by it."""

WORKS_BUT_LIMITS = 429
"""The status code of a service that works, but limits requests (RFC 6585)."""


def request_for(target: str, host: str) -> bytes:
    """Return the request for TARGET, with HOST as Host header. HTTP/1.0: a plain body until the end (RFC 1945)."""
    return (
        f"GET {target} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\nUser-Agent: {USER_AGENT}\r\n\r\n"
    ).encode()


def code_of(received: bytes) -> int | None:
    """Return the status code of a response; None if it is none of HTTP."""
    words = received.partition(b"\r\n")[0].split()
    if len(words) >= 2 and words[0].startswith(b"HTTP/") and words[1].isdigit() and len(words[1]) == 3:
        return int(words[1])
    return None


def accepts(code: int, expect: tuple[int, ...]) -> bool:
    """Return whether CODE means healthy, where EXPECT are the codes that do; without any, all 2xx."""
    return code in expect if expect else 200 <= code <= 299


def response_header(head: bytes, wanted: bytes) -> str:
    """Return the first value of a header in HEAD, the response without its body; empty without one."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == wanted:
            return value.strip().decode("latin-1")
    return ""


def is_complete(received: bytes) -> bool:
    """Return whether the body has its announced length: some servers keep the connection open after it."""
    head, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return False
    length = response_header(head, b"content-length")
    return length.isdecimal() and len(length) < 20 and len(body) >= int(length)
