"""Lines as the suite's services print them: JSON objects of about 230 bytes, each with its number and its moment.

The same number gives the same line but for its moment, so what a bench looks for is known beforehand.
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
"""A word that one line in so many has."""
COMMON_WORD = "ticket"
_USERS = 200


def mixed(number: int) -> int:
    """32 bits that look random, the same for the same number (a hash after Mueller)."""
    part = ((number >> 16 ^ number) + 1) * 0x45D9F3B & 0xFFFFFFFF
    part = (part >> 16 ^ part) * 0x45D9F3B & 0xFFFFFFFF
    return part >> 16 ^ part


def level(number: int) -> str:
    part = mixed(number) % 100
    return "INFO" if part < 80 else "DEBUG" if part < 92 else "WARNING" if part < 98 else "ERROR"


def trace_id(name: str, number: int) -> str | None:
    """Four lines in five are of a request, which has five."""
    if mixed(number) % 5 == 0:
        return None
    spread = (number // 5 + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    of_name = sum(name.encode()) & 0xFFF
    return f"{spread >> 32:08x}-{spread >> 16 & 0xFFFF:04x}-4{of_name:03x}-8{number >> 20 & 0xFFF:03x}-{spread:012x}"[
        :36
    ]


def user_id(number: int) -> str | None:
    """Every other line is of one of 200 users."""
    part = mixed(number)
    return f"user{(part >> 2) % _USERS}@example.com" if part & 1 else None


def message(number: int, moment: float) -> str:
    """Words, the line's number, and at its end the moment of its printing in seconds since 1970."""
    part = mixed(number)
    words = " ".join(_WORDS[part >> shift & 31] for shift in (0, 5, 10, 15, 20))
    rare = f" {RARE_WORD}" if number % RARE_EVERY == 7 else ""
    common = f" {COMMON_WORD}" if part % 11 == 0 else ""
    return f"{words}{common}{rare} {number} at {moment:.6f}"


def printed_at(text: str) -> float:
    """The moment at the end of a `message`."""
    return float(text.rpartition(" ")[2])


def number_of(text: str) -> int:
    """The number in a `message`."""
    return int(text.rsplit(" ", 3)[1])


def line(name: str, number: int, moment: float, stamp: str) -> str:
    """A line of service NAME; STAMP is MOMENT as `stamped` gives it."""
    part = mixed(number)
    trace, user = trace_id(name, number), user_id(number)
    ids = (f', "correlation_id": "{trace}"' if trace else "") + (f', "user_id": "{user}"' if user else "")
    return (
        f'{{"timestamp": "{stamp}", "level": "{level(number)}", "logger": "app.{_WORDS[part >> 9 & 31]}", '
        f'"message": "{message(number, moment)}", "function": "{_WORDS[part >> 13 & 31]}", "line": {part % 900}'
        f"{ids}}}\n"
    )


def stamped(moment: float) -> str:
    """ISO 8601 as the suite writes it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def batch(name: str, first: int, count: int, moment: float) -> bytes:
    """COUNT lines from number FIRST on, all of one moment."""
    stamp = stamped(moment)
    return "".join([line(name, number, moment, stamp) for number in range(first, first + count)]).encode()


def entry(name: str, number: int, moment: float) -> dict[str, object]:
    """The same as `line`, for a service that posts."""
    return {
        "timestamp": stamped(moment),
        "level": level(number),
        "message": message(number, moment),
        "trace_id": trace_id(name, number),
        "user_id": user_id(number),
        "context": {"logger": "app", "line": mixed(number) % 900},
    }
