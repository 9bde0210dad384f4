"""Patterns of the parts of a log line's head, such as times and separators, and the state of reading one."""

import re
from dataclasses import dataclass, field
from typing import Any

from helmd.model.logs.parsing.parsed import Formats

_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,:]\d{1,9})?(?: ?[AP]M\b)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|CET|WET|EET|MSK|[A-Z]{1,3}[SD]T|[+-]\d\d(?::?\d\d)?)(?![\w]))?"
HEAD_TIME = re.compile(
    rf"(?:\d{{4}}[-/.]\d\d[-/.]\d\d(?:(?:T|  ?|, ?| - |-){_CLOCK}|[T ]\d\d:\d\d\b)?"  # 2026-11-27T23:01:46.123
    rf"|(?:{_DAY},? )?\d\d?[-/. ](?:{_MONTH}|\d\d)[-/. ]\d{{2,4}}(?:[: T]|, ?){_CLOCK}"  # 27/Nov/2026:23:01:46
    rf"|(?:{_DAY},? )?{_MONTH} {{1,2}}\d\d?,?(?: \d{{4}})? {_CLOCK}(?: [A-Z]{{3,4}}(?= \d))?(?: \d{{4}}\b)?"  # ctime(3)
    rf"|\d{{8}}[T -]?\d\d:?\d\d:?\d\d(?:[.,]\d{{1,9}})?|\d{{6}} {_CLOCK}"  # 20261127T230146, 261127 23:01:46
    rf"|\d\d[-/]\d\d {_CLOCK}|{_CLOCK}|\d{{1,2}}:\d\d[AP]M\b"
    rf"|1\d{{9}}(?:\.\d{{1,9}})?(?=[\s\]:|,])|1\d{{12}}(?=[\s\]:|,])"  # seconds or milliseconds since 1970
    r"|1\.\d{6,18}e\+09(?=\s)|\d{1,9}\.\d{3,9}s(?=[ \t])"  # the same as zap prints it, and seconds since the start
    rf"){_ZONE}"
)
WITH_DATE = re.compile(
    rf"\d{{4}}[-/.]|\d\d?[-/. ](?:{_MONTH}|\d\d)[-/. ]|{_DAY}|{_MONTH}|\d{{6}}|1\d{{9}}|\d\d[-/]\d\d |1\.\d{{6}}"
)


HEAD_SPACES = re.compile(r"[ \t]*")
HEAD_SEPARATOR = re.compile(
    r"[ \t]*(?:\|-(?=[A-Z])|(?:-{1,3}>?|\u2013|\u2014|::?|\|{1,2}|>{1,2}|;|,|@|=>)(?=[\s\[(<{]|\Z)[ \t]*"
    r"|[:|;,>@][ \t]*){0,2}"
)
HEAD_WORD = re.compile(r"(?:[^\W\d]|[/~$@*+#.])[\w./$@#~*+-]*")
LOGGER_REST = re.compile(r"(?:::?[\w.$<>/-]+)*(?:\(\))?")
HEAD_NUMBER = re.compile(r"#?\d{1,12}(?:[.:]\d+)*s?(?=[\s:|\]\[,]|\Z)|(?:0x)?\d[0-9a-f]{7,15}(?=\s)|-(?=\s)")
HEAD_MARK = re.compile(
    r"(?:\*{2,4}|!{2,4}|#{2,4}|>{2,4}|(?!FATAL |CRITICAL )[A-Z]{2,16}(?= (?:ERROR|WARNING): )) (?=[A-Z]{4})"
)
"""A mark or word before a level, which remains in the message: *** ERROR ..., MODULE WARNING: ..."""
HEAD_PAIR = re.compile(r'([A-Za-z_][\w.-]{0,60})=("[^"]{0,200}"|[^\s"\]]{0,200})(?=[\s\]]|\Z)')
HEAD_PID = re.compile(r"(?:pid[ =:]?\s?|#)?(\d{1,9})(?:[:\s,#].{0,60})?\Z")
HEAD_BRACKETS = {"[": "]", "(": ")", "<": ">", "{": "}"}
LEVEL_FIRST = re.compile(r"(?P<level>[A-Za-z]+)\s*[/:|,#]\s*(?P<name>[\w.$ -]{1,80})\Z")
LEVEL_LAST = re.compile(r"(?P<name>[\w.$ #-]{1,80}?)\s*[/:|,.#]\s*(?P<level>[A-Za-z]+)\Z")
NAME_BRACKET = re.compile(r"[\w.$/:@#~*+-]{1,120}\Z")
LOGGER_BEFORE = re.compile(
    r"(?P<name>[A-Za-z_~/.$][\w.$/@#~-]{0,199}(?:(?:::|:)[\w.$<>/-]{1,100}){0,8}(?:\[\d+\]|\(\))?)"
    r"(?P<end> ?: (?! )| ?:(?=\Z)| - | > |\t|\| ?)"
)
HEAD_PHP = re.compile(
    r"PHP (?P<word>(?:Fatal|Recoverable fatal|Parse) error|(?:User )?(?:[Ww]arning|[Nn]otice|[Dd]eprecated)): "
)
PHP_LEVELS = {"f": "CRITICAL", "r": "CRITICAL", "p": "ERROR", "w": "WARNING", "d": "WARNING", "n": "INFO"}
HEAD_SYSLOG = re.compile(
    r"<(?P<priority>1?\d?\d)>(?:1 (?P<iso>\d{4}-\S{1,40}|-) (?P<host>\S{1,255}) (?P<app>\S{1,48}) (?P<pid>\S{1,128})"
    r" (?P<id>\S{1,32}) (?P<data>-|(?:\[[^\]]{1,300}\]){1,8})(?: |\Z)"  # RFC 5424
    rf"|(?P<time>{_MONTH} [ \d]\d {_CLOCK}) (?:(?P<sender>[\w.:-]{{1,255}}) )?(?P<tag>[\w./-]{{1,48}})"
    r"(?:\[(?P<process>\d{1,9})\])?: )"  # RFC 3164
)
SYSLOG_LEVELS = ("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARNING", "INFO", "INFO", "DEBUG")
HEAD_RUBY = re.compile(r"[DIWEFA], \[")
FATAL_ERROR = re.compile(r"(?:fatal|runtime) error\b", re.IGNORECASE)
ERROR_CODE = re.compile(r" [A-Za-z]{1,8}\d{1,8}: ")
"""A compiler's code after the level: error TS2304: ..."""
HEAD_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?=\s)")
STATED_PLACE = re.compile(r"in (?:\.{0,2}/\S|[\w.$/-]{1,200}\.\w|configuration\Z|[\w ]{1,40}: )")
"""A location after the level, as opposed to prose that begins with "in": ERROR in ./src/a.js"""
CODE_IN_BRACKETS = re.compile(r"\[\w{1,12}\](?=[:\s])(?! *=)")
PATH_LINE = re.compile(r"(?:[\w@+./~-]{0,300}/)?[\w@+.~-]{1,200}(?::\d+(?::\d+)?:?(?: -)?|\(\d+(?:,\d+){0,3}\) ?:) ")
LETTER_FOLLOWED = re.compile(r"[A-Z]{3,}\b|[^\s.:/_]*[.:/_]\S|\S+:|\[|\(")


@dataclass(slots=True)
class LineHead:
    """The parts of the head read up to the index ``at`` in ``text``."""

    formats: Formats
    text: str
    at: int = 0
    stamp: str | None = None
    """The text of the time."""
    dated: bool = False
    """Whether the time has a date."""
    level: str | None = None
    word: str = ""
    """The text of the level."""
    exact: bool = True
    """Whether ``word`` has no more meaning than ``level``, so that it need not be stored."""
    keeps_level: bool = False
    """Whether the level's text remains in the message."""
    names: dict[str, str] = field(default_factory=dict)
    """Loggers, threads, hosts and other names, by their keys in the context."""
    bare_names: int = 0
    """Number of names since the last separator."""
    separated: bool = True
    """Whether there is a separator, a bracket or the time right before ``at``."""
    pid: int | None = None
    pairs: dict[str, Any] = field(default_factory=dict)
    """The key=value pairs."""

    def add_name(self, key: str, value: str) -> None:
        if value and value != "-":
            self.names[key] = f"{self.names[key]} {value}" if key in self.names else value

    def set_level(self, word: str, level: str) -> None:
        self.level, self.word = level, word
        self.exact = level.lower().startswith(word.lower())


def skip_separator(head: LineHead, at: int) -> None:
    """Move to the end of the separator at AT, which may be empty."""
    found = HEAD_SEPARATOR.match(head.text, at)
    assert found is not None
    between = found[0].strip()
    head.separated = bool(between) or "\t" in found[0]
    if head.separated:
        head.bare_names = 0
    head.at = found.end()


def level_called(head: LineHead, word: str) -> str | None:
    known = None if word.isdigit() else head.formats.levels.get(word)
    return known[0] if known is not None else None
