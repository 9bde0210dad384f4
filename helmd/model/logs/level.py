"""Levels of log lines, and the names that people give them."""

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""From the least to the gravest."""

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
    """The level called NAME, in any case. Raises ValueError with a sentence."""
    level = NAMES.get(name.strip().lower())
    if level is None:
        raise ValueError(f"there is no level {name[:40]!a}; levels are {', '.join(LEVELS).lower()}")
    return level


def levels_named(text: str) -> frozenset[str]:
    """What ``-p TEXT`` asks for, as in journalctl(1): a level and all graver ones, or a range ``FROM..TO``.

    Raises ValueError with a sentence.
    """
    first, dots, last = text.partition("..")
    low, high = level_named(first), level_named(last) if dots else LEVELS[-1]
    ends = sorted((LEVELS.index(low), LEVELS.index(high)))
    return frozenset(LEVELS[ends[0] : ends[1] + 1])
