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

CODES = {
    code: level
    for level, codes in (
        ("DEBUG", "T V D TRC TRCE TRAC VRB VERB DBG DBUG DEBU DEB"),
        ("INFO", "I N II INF NTC NOTE SYSTEM"),
        ("WARNING", "W WW WRN WARNIN"),
        ("ERROR", "E EE ERRO EROR FAIL SEV"),
        ("CRITICAL", "F C FTL FATA PNC PANI CRT CRI ALRT EMRG"),
    )
    for code in codes.split()
}
"""Short names of levels: of glog, Serilog, zerolog, .NET, logrus, MySQL and others."""

_SEVERITY = {level: severity for severity, level in enumerate(LEVELS)}


def more_severe(one: str | None, other: str | None) -> str | None:
    """Return the more severe of two levels; None stands for no level."""
    if one is None or other is None:
        return one or other
    return one if _SEVERITY[one] >= _SEVERITY[other] else other


def level_of_status(status: int) -> str:
    """Return the level of an access line by its HTTP status."""
    return "ERROR" if 500 <= status <= 599 else "WARNING" if 400 <= status <= 499 else "INFO"


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
