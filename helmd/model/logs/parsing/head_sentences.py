"""The level of lines without a logger's head: of a program's message ("rsync error: ...", "error during build:"), and
of PostgreSQL's lines with any log_line_prefix.

In a message the level's name must be near the start, and a colon must end its phrase: prose rarely has both.
"""

import re

from helmd.model.logs.parsing.crash_dumps import start_of
from helmd.model.logs.parsing.head_tokens import HEAD_TIME
from helmd.model.logs.parsing.head_words import NO_LOGGER, NOUNS_AFTER, PROSE_BEFORE
from helmd.model.logs.parsing.parsed import Parsed
from helmd.model.logs.parsing.structured import pid_of

_REACH = 300
"""Maximum number of characters of a line that are matched."""
_AFTER_TIME = re.compile(r"[\] ]{0,4}(?:[\[(][\w:. -]{1,40}[\])] ){0,3}")
"""The text between time and first word, such as names of components in brackets."""
_PROGRAM = r"[\w@./-]{1,60}(?:\[\d{1,9}\])?: "
_SENTENCE = re.compile(
    rf"(?:{_PROGRAM})?(?P<before>(?:[A-Za-z][\w./-]{{0,40}}:? ){{0,3}})(?P<level>[Ee]rror|[Ww]arning|ERROR|WARNING)"
    r"(?P<after>(?: [^\s:;,.]\S{0,60}){0,7}?):(?=\s|\Z)(?! (?:\d+|none|no|n/a)\Z)"
)
"""dpkg: error processing package x: ..., CMake Warning at CMakeLists.txt:3 (message): ..."""
_FIRST = r"(?: {1,2}- (?=\S)| (?=[A-Z][a-z]+ [a-z\"']|An? [a-z]|[\"']\S|[\w./-]+[.@][\w.-]+: )|\(\w{1,40}\): (?=\S))"
"""What follows a level in lower case that begins a line: error Command failed, warn  - no memory, error(http): refused.
"""
_START = re.compile(
    rf"(?P<ERROR>error{_FIRST}|\w{{1,30}}:error(?: |\Z)|ERR_[A-Z][A-Z0-9_]{{2,80}}:? {{1,2}}(?=[A-Z\"'])"
    r"|[ \u2009](?:ERR_|E)[A-Z0-9_]{3,80}[ \u2009] {1,2}(?=[A-Z])|\[!\] \w{0,40}Error: | {2,8}\d{1,6}:\d{1,6} +error +"
    r"|g?make(?:\[\d{1,9}\])?: \*\*\* "
    r"|An (?:\w{1,20} )?error (?:has )?occurred(?: (?:\(\w{1,60}\)|while|when|during)\s.{1,200}?)?:(?=\s|\Z))"
    rf"|(?P<WARNING>warn(?:ing)?{_FIRST}|\w{{1,30}}:warn(?: |\Z)|\(!\) |\u2009WARN\u2009"
    r"| {2,8}\d{1,6}:\d{1,6} +warning +)"
    rf"|(?P<INFO>info{_FIRST})"
)
"""Levels by yarn, pnpm, Next.js, Prisma, Rollup, ESLint, make and Zig, and the names of errors in Node.js."""
SENTENCE_STARTS = (" E", "info", "\u2009", "(!", "make", "gmake")
"""Beginnings of such lines that contain no level's name."""
_POSTGRESQL = re.compile(
    r"(?P<prefix>[\[<\d].{8,250}?[\s:|>,-])(?P<level>DEBUG[1-5]|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC):  (?=\S)"
)
_POSTGRESQL_LEVELS = {"ERROR": "ERROR", "FATAL": "ERROR", "PANIC": "CRITICAL", "WARNING": "WARNING"}
_POSTGRESQL_PID = re.compile(r"\[(\d{1,9})(?:-\d+)?\]")


def read_sentence(text: str) -> Parsed | None:
    """Return the level of TEXT without a head other than a time, or None if it has none, or begins a crash dump."""
    line = text[:_REACH].partition("\n")[0]
    stamp = HEAD_TIME.match(line, 1 if line[:1] == "[" else 0) if line[:1] in "[0123456789" else None
    at = 0 if stamp is None else _AFTER_TIME.match(line, stamp.end()).end()  # type: ignore[union-attr]
    level = None
    found = _SENTENCE.match(line, at)
    if found is not None and _is_message(found["before"], found["after"]):
        level = "ERROR" if found["level"][0] in "Ee" else "WARNING"
    if level is None and (start := _START.match(line, at)) is not None:
        level = start.lastgroup
    if level is None or ((dump := start_of(text)) is not None and dump.level is not None):
        return None
    return Parsed(level, text)


def _is_message(before: str, after: str) -> bool:
    """Return whether the words around a level's name are those of a program's message rather than of prose."""
    if not before and not after:
        return False
    words = before.lower().split()
    if any(word in NO_LOGGER or word in PROSE_BEFORE for word in words):
        return False
    return not after or after.split(None, 1)[0].lower().rstrip(",;.") not in NOUNS_AFTER


def postgresql_head(line: str, text: str) -> Parsed | None:
    """Parse TEXT, which begins with LINE, as a line of PostgreSQL: a prefix, then a level, a colon and two spaces.

    Returns None for other lines.
    """
    found = _POSTGRESQL.match(line)
    if found is None:
        return None
    word, prefix = found["level"], found["prefix"]
    pid = _POSTGRESQL_PID.search(prefix)
    if pid is None and HEAD_TIME.search(prefix) is None:
        return None
    level = _POSTGRESQL_LEVELS.get(word) or ("DEBUG" if word[:5] == "DEBUG" else "INFO")
    context: dict[str, object] = {"prefix": prefix.strip(" :")}
    if word != level:
        context["level"] = word
    return Parsed(level, text[found.end() :], context, process_id=None if pid is None else pid_of(pid[1]))
