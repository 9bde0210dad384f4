"""Log levels and their names."""

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""In order of increasing severity."""

NAMES = {
    "debug": "DEBUG",
    "7": "DEBUG",
    "info": "INFO",
    "6": "INFO",
    "notice": "INFO",
    "5": "INFO",
    "warning": "WARNING",
    "warn": "WARNING",
    "4": "WARNING",
    "error": "ERROR",
    "err": "ERROR",
    "3": "ERROR",
    "critical": "CRITICAL",
    "crit": "CRITICAL",
    "fatal": "CRITICAL",
    "2": "CRITICAL",
    "alert": "CRITICAL",
    "1": "CRITICAL",
    "emerg": "CRITICAL",
    "panic": "CRITICAL",
    "0": "CRITICAL",
}
"""Python's names, and the names and numbers of syslog(3), in lower case."""


def level_named(name: str) -> str:
    """Return the level called NAME, ignoring case. Raises ValueError with a message for users."""
    level = NAMES.get(name.strip().lower())
    if level is None:
        raise ValueError(f"unknown level {name[:40]!a}; levels are {', '.join(LEVELS).lower()}")
    return level


def levels_named(text: str) -> frozenset[str]:
    """Return the levels selected by ``-p TEXT`` as in journalctl(1): a level and above, or a range ``FROM..TO``.

    Raises ValueError with a message for users.
    """
    first, dots, last = text.partition("..")
    low, high = level_named(first), level_named(last) if dots else LEVELS[-1]
    ends = sorted((LEVELS.index(low), LEVELS.index(high)))
    return frozenset(LEVELS[ends[0] : ends[1] + 1])
