"""How ordinary programs say that they met a limit, or what an earlier run has left, and what to do about it."""

import re
from collections.abc import Sequence

from helmd.model.suite.service import Service
from helmd.model.units.unit_state import UnitFacts

_MANY_FILES = re.compile(r"Too many open files|\bEMFILE\b|Errno 24\]", re.I)
_WORKER = re.compile(r"\bWORKER TIMEOUT\b")
_RUNS_ALREADY = re.compile(
    r"\b(?:pid|lock) ?file\b.*\b(?:already exists|exists\.|stale)|already running\b.*\bpid\b|\bpid\b.*\balready running"
    r"|\banother \w+ (?:server|process|instance) is (?:already )?running",
    re.I,
)
_IN_USE = re.compile(r"address (?:already|.* is already) in use|\bEADDRINUSE\b|Errno 98\]", re.I)
_LOCALE = re.compile(r"unsupported locale|(?:setting|set|change) (?:\w+ to default )?locale\b.*(?:fail|:)", re.I)
_OPENED = re.compile(
    r"/(?:dev/std(?:out|err)|dev/fd/[12]|proc/self/fd/[12])\b.*(?:No such device or address|\bENXIO\b)"
    r"|(?:No such device or address|\bENXIO\b|Errno 6\]).*/(?:dev/std(?:out|err)|dev/fd/[12]|proc/self/fd/[12])\b"
)
_PID_FILE = re.compile(r"(?<![\w./~-])[\w./~-]*\w\.(?:pid|lock)\b")
_SOCKET = re.compile(r"(?<![\w./~-])[\w./~-]*\w\.sock(?:et)?\b")


def program_cause(service: Service, facts: UnitFacts, printed: Sequence[str]) -> str:
    """Return what a service that fails has met, and what to do, in one or two sentences; empty if that is not known.

    PRINTED are its last lines.
    """
    if facts.result == "oom-kill":
        return _out_of_memory(service)
    return next(filter(None, (_cause(service, line) for line in reversed(printed))), "")


def _cause(service: Service, line: str) -> str:
    if _MANY_FILES.search(line):
        most = service.limits.open_files
        now = f" ({most} now)" if most else ""
        return f"It has as many files open as it may: limits.open_files{now} allows more."
    if _WORKER.search(line):
        return (
            "gunicorn kills a worker that has done nothing else for as long as its --timeout: a request, or loading the"
            " application, takes longer."
        )
    if _RUNS_ALREADY.search(line):
        file = _PID_FILE.search(line)
        named = f"{file[0]} is" if file else "Its PID file is"
        return f"{named} what a run that was killed leaves, unless it runs elsewhere. {_removal(file)}"
    socket = _SOCKET.search(line)
    if _IN_USE.search(line) and (socket or service.port is None):
        named = socket[0] if socket else "An address that it wants"
        return f"{named} is in use, or is the file of a socket that a run which was killed has left. {_removal(socket)}"
    if _OPENED.search(line):
        return (
            "Its standard output is a socket, of the journal, which can be written to but not opened by a path such as"
            " /dev/stdout: have it print there itself (in a shell: >&2), or start it by"
            ' ["sh", "-c", "PROGRAM 2>&1 | cat"].'
        )
    if _LOCALE.search(line):
        return (
            "This machine does not have the locale that LANG or LC_ALL names; locale -a lists those that it has,"
            " such as C.UTF-8."
        )
    return ""


def _removal(file: re.Match[str] | None) -> str:
    return f'To remove it before each start, set pre_start = ["rm", "-f", "{file[0] if file else "FILE"}"].'


def _out_of_memory(service: Service) -> str:
    if most := service.limits.memory_max:
        return f"It may use {most / (1 << 20):,.0f}M (limits.memory_max)."
    return (
        "The memory of the machine, or of a group of processes that it is in, was used up; limits.memory_max bounds a"
        " single service."
    )
