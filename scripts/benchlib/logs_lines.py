"""Lines like those of the suite's services: JSON objects of about 230 bytes, each with its number and time.

Apart from the time, a line depends on its number only, so that queries can be chosen in advance.
"""

from datetime import UTC, datetime

_WORDS = [
    "request",
    "user",
    "login",
    "invoice",
    "ticket",
    "customer",
    "sync",
    "failed",
    "loaded",
    "database",
    "connection",
    "timeout",
    "cache",
    "token",
    "refresh",
    "page",
    "view",
    "export",
    "import",
    "report",
    "started",
    "finished",
    "processing",
    "queue",
    "worker",
    "index",
    "search",
    "update",
    "delete",
    "create",
    "company",
    "contact",
    "asset",
    "device",
    "backup",
    "network",
    "billing",
    "plan",
    "contract",
    "shutdown",
]
RARE_WORD, RARE_EVERY = "quicksilver", 100_003
"""A word, and the number of lines of which one contains it."""
COMMON_WORD = "ticket"
_USERS = 200


def hash_of(number: int) -> int:
    """Return a 32-bit hash of a number (by Thomas Mueller)."""
    part = ((number >> 16 ^ number) + 1) * 0x45D9F3B & 0xFFFFFFFF
    part = (part >> 16 ^ part) * 0x45D9F3B & 0xFFFFFFFF
    return part >> 16 ^ part


def level(number: int) -> str:
    part = hash_of(number) % 100
    return "INFO" if part < 80 else "DEBUG" if part < 92 else "WARNING" if part < 98 else "ERROR"


def trace_id(name: str, number: int) -> str | None:
    """Return a trace id for four of five lines; a request has five lines."""
    if hash_of(number) % 5 == 0:
        return None
    spread = (number // 5 + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    of_name = sum(name.encode()) & 0xFFF
    return f"{spread >> 32:08x}-{spread >> 16 & 0xFFFF:04x}-4{of_name:03x}-8{number >> 20 & 0xFFF:03x}-{spread:012x}"[
        :36
    ]


def user_id(number: int) -> str | None:
    """Return one of 200 user ids for every other line."""
    part = hash_of(number)
    return f"user{(part >> 2) % _USERS}@example.com" if part & 1 else None


def message(number: int, timestamp: float) -> str:
    """Return a message: words, the line's number, and the time of printing in seconds since the epoch."""
    part = hash_of(number)
    words = " ".join(_WORDS[part >> shift & 31] for shift in (0, 5, 10, 15, 20))
    rare = f" {RARE_WORD}" if number % RARE_EVERY == 7 else ""
    common = f" {COMMON_WORD}" if part % 11 == 0 else ""
    return f"{words}{common}{rare} {number} at {timestamp:.6f}"


def printed_at(text: str) -> float:
    """Return the time in a `message`."""
    return float(text.rpartition(" ")[2])


def number_of(text: str) -> int:
    """Return the number in a `message`."""
    return int(text.rsplit(" ", 3)[1])


def line(name: str, number: int, timestamp: float, stamp: str) -> str:
    """Return a line of service NAME; STAMP is TIMESTAMP as formatted by `iso_time`."""
    part = hash_of(number)
    trace, user = trace_id(name, number), user_id(number)
    ids = (f', "correlation_id": "{trace}"' if trace else "") + (f', "user_id": "{user}"' if user else "")
    return (
        f'{{"timestamp": "{stamp}", "level": "{level(number)}", "logger": "app.{_WORDS[part >> 9 & 31]}", '
        f'"message": "{message(number, timestamp)}", "function": "{_WORDS[part >> 13 & 31]}", "line": {part % 900}'
        f"{ids}}}\n"
    )


def iso_time(timestamp: float) -> str:
    """Format a time in ISO 8601, as the suite does."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def batch(name: str, first: int, count: int, timestamp: float) -> bytes:
    """Return COUNT lines with numbers from FIRST on, all with the same time."""
    stamp = iso_time(timestamp)
    return "".join([line(name, number, timestamp, stamp) for number in range(first, first + count)]).encode()


def entry(name: str, number: int, timestamp: float) -> dict[str, object]:
    """Return the entry of a service that posts, with the content of `line`."""
    return {
        "timestamp": iso_time(timestamp),
        "level": level(number),
        "message": message(number, timestamp),
        "trace_id": trace_id(name, number),
        "user_id": user_id(number),
        "context": {"logger": "app", "line": hash_of(number) % 900},
    }
