"""The heads that loggers print before a message: time, level, logger, thread and process id, in any order and brackets.

`read_head` parses all lines for which `formats.toml` has no format. A level counts only where loggers print it: in
brackets, before a separator, or after a time; not in prose ("Error handling was enabled"). All patterns take linear
time in at most the first REACH characters of the first line.
"""

import re
from typing import Any

from helmd.model.logs.ids import given_id, trace_id_in
from helmd.model.logs.parsing.embedded_time import is_same_time
from helmd.model.logs.parsing.head_levels import message_follows, read_bare_level, read_level_in
from helmd.model.logs.parsing.head_sentences import SENTENCE_STARTS, postgresql_head, read_sentence
from helmd.model.logs.parsing.head_symbols import parse_cee, parse_indented_symbol, parse_symbol
from helmd.model.logs.parsing.head_tokens import (
    HEAD_BRACKETS,
    HEAD_MARK,
    HEAD_NUMBER,
    HEAD_PAIR,
    HEAD_PHP,
    HEAD_PID,
    HEAD_RUBY,
    HEAD_SEPARATOR,
    HEAD_SPACES,
    HEAD_SYSLOG,
    HEAD_TIME,
    HEAD_UUID,
    HEAD_WORD,
    LOGGER_BEFORE,
    LOGGER_REST,
    NAME_BRACKET,
    PATH_LINE,
    PHP_LEVELS,
    SYSLOG_LEVELS,
    WITH_DATE,
    LineHead,
    level_called,
    skip_separator,
)
from helmd.model.logs.parsing.head_words import CALENDAR, NO_LOGGER
from helmd.model.logs.parsing.parsed import Formats, Parsed, folded
from helmd.model.logs.parsing.structured import json_object, logfmt_pairs, parse_object, pid_of

REACH = 512
"""Maximum number of characters of a head."""
_MOST_TOKENS = 12
_SPRING_PID = re.compile(r"(\d{1,9}) --- ")
_LOGGER_IN_BRACKETS = re.compile(r"[a-z_][\w.:/$-]*\Z|\w+[.:/]\S*\Z|\d+\Z")
_ERROR_NAMES = ("Error", "Exception", "Warning", "Fehler", "Failure")

_LEVEL_NAMES = "TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL|SEVERE|ALERT|EMERG"
INDENT = 24
"""Maximum number of spaces before a head: the width of an omitted time."""
_COMMON_LOGGER = r"[a-z_][\w.$/-]{0,199}"
_PLAIN_WORD = r"[A-Za-z][\w'-]*+[ ,](?![-:>|] )"
_DATED_HEAD = re.compile(
    r"(?P<stamp>\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?)"
    rf"(?: - (?:(?P<logger>{_COMMON_LOGGER}) - )?(?P<level>{_LEVEL_NAMES}) - (?={_PLAIN_WORD})"
    rf"| (?P<second>{_LEVEL_NAMES}):? {{1,5}}(?:(?P<named>{_COMMON_LOGGER})(?:: | - )(?! )|(?={_PLAIN_WORD})))"
)
_LEVEL_HEAD = re.compile(rf"(?P<level>{_LEVEL_NAMES}): {{1,8}}(?={_PLAIN_WORD})")
_COMMON = {first + second: _DATED_HEAD for first in "12" for second in "0123456789"} | {
    name[:2]: _LEVEL_HEAD for name in _LEVEL_NAMES.split("|")
}
"""The most frequent heads, by their first two characters. Results are as by `_read`, in a tenth of the time."""
_LEVEL_LIKE = re.compile(
    "(?:ERR|EROR|WAR|WRN|FAT|FTL|CRI|CRT|SEV|INF|DEB|DBG|DBUG|TRA|TRC|VER|NOT|FINE|CONF|EMER|ALERT|PANIC|FAIL|DEPRECATED|SILLY"
    "|FEHL|SCHWER|HINW|GRAV|AVI|AVV|ATTE|FOUT|WAAR|HATA|UYARI|CHYB|FEJL|ADVAR)"
)
"""Matches a part of every level's name, in upper case."""
_ANY_CASE = "(?i:err|warn|fatal|crit|fail|debug|info|notice|dbug|trce|trace|severe|alert|emerg|panic)"
_TWO_WORDS = re.compile("[A-Za-z][a-z]*+ [a-z]")
_CANDIDATE = re.compile(
    rf"(?:{'|'.join(sorted(CALENDAR))})[ ,]"
    r"|(?:\*{2,4}|!{2,4}|#{2,4}|>{2,4}) [A-Z]{4}|[A-Z]{2,16} (?:ERROR|WARNING): "
    r"|(?![A-Za-z][a-z]*+ (?!error:)[a-z])(?:"
    r"[A-Za-z_/.*~$@+#][\w./$@#~*+-]*+(?:[:|,>(\t\[]| [\[|:(<@]|  | - )[\s:|>(-]*+"
    rf"(?=[\[(<\d{{]|[A-Z]{{3}}|{_ANY_CASE}|[\w./@-]++(?:[:\[|(]| [:|\[(-]))"
    r"|[EFSWefsw][a-z]{3,8}: |[A-Z]{4,14}: "
    rf"|{_ANY_CASE}\w*+(?:[:\[|\t>;!]| [\[|(<:@-]|  | (?i:error):)|[A-Z]{{3,12}}+ |[DIWEF]/)"
)
"""The beginning of a head that starts with a letter or a mark."""


def may_have_head(text: str) -> bool:
    """Return whether TEXT can begin with a head. A fast test, which is False for most lines without one."""
    first = text[:1]
    if first in "0123456789[(<":
        return True
    if first == " ":
        begins = text[:INDENT].lstrip()[:1]
        return begins.isupper() or (begins in "0123456789[" and begins != "")
    # Most lines without a head begin with two words.
    words = _TWO_WORDS.match(text, 0, 256)
    if words is not None and text[:3] not in CALENDAR and not text.startswith("error:", words.end() - 1):
        return False
    if _CANDIDATE.match(text, 0, 256) is None:
        return False
    return text[1:2] == "/" or _LEVEL_LIKE.search(text[:80].upper()) is not None


def begins_with_head(text: str) -> bool:
    """Return whether TEXT begins with a time, in brackets or not, as a logger's line does even without a level."""
    return text[:1] in "0123456789[<" and HEAD_TIME.match(text, 1 if text[:1] == "[" else 0) is not None


def read_head(formats: Formats, text: str, realtime: int) -> Parsed | None:
    """Parse the head of TEXT; return None if it states no level."""
    first = text[:1]
    if (common := _COMMON.get(text[:2])) is not None and (found := common.match(text, 0, REACH)) is not None:
        return _common(formats, found, text, realtime)
    if first > "\x7f" and not first.isalpha() and first != "\u2009":
        return parse_symbol(formats, text)
    if first == " " and not text.isascii() and (indented := parse_indented_symbol(formats, text)) is not None:
        return indented
    if first == "@" and (cookie := parse_cee(formats, text, realtime)) is not None:
        return cookie
    if first != "\u2009" and may_have_head(text):
        if (parsed := _after_time(formats, text, realtime)) is not None:
            return parsed
        line = text if len(text) <= REACH and "\n" not in text else text[:REACH].partition("\n")[0]
        if ":  " in line and (postgresql := postgresql_head(line, text)) is not None:
            return postgresql
        head = LineHead(formats, line)
        _read(head)
        if head.level is not None:
            return _parsed(head, text, realtime)
    # Most lines contain none of these; the test takes less time than the call.
    if "rror" in text or "arn" in text or "ERR" in text or text.startswith(SENTENCE_STARTS):
        return read_sentence(text)
    return None


def _common(formats: Formats, found: re.Match[str], text: str, realtime: int) -> Parsed | None:
    """Parse TEXT with one of the frequent heads, FOUND."""
    groups = found.groupdict()
    word = groups["level"] or groups["second"]
    known = formats.levels.get(word)
    if known is None:
        return None
    context: dict[str, Any] = {}
    if (stamp := groups.get("stamp")) is not None and not is_same_time(stamp, realtime):
        context["timestamp"] = stamp
    if (logger := groups.get("logger") or groups.get("named")) is not None:
        context["logger"] = logger
    if not known[1]:
        context["level"] = word
    return Parsed(known[0], text[found.end() :], context or None)


def _after_time(formats: Formats, text: str, realtime: int) -> Parsed | None:
    """Parse a JSON object or key=value pairs after a time, as printed by container runtimes. Return None for others."""
    if text[:1] not in "0123456789[" or (text[-1:] != "}" and "level=" not in text and "lvl=" not in text):
        return None
    stamp = HEAD_TIME.match(text, 1 if text[0] == "[" else 0, 80)
    if stamp is None:
        return None
    rest = text[stamp.end() :].lstrip("] \t")
    given = json_object(rest) if rest[:1] == "{" else logfmt_pairs(rest)
    if given is None:
        return None
    parsed = parse_object(formats, given, rest, realtime, False)
    if parsed.level is None:
        return None
    if is_same_time(stamp[0], realtime):
        return parsed
    return parsed._replace(context={"timestamp": stamp[0], **(parsed.context or {})})


def _parsed(head: LineHead, text: str, realtime: int) -> Parsed:
    context: dict[str, Any] = {}
    if head.stamp is not None and not is_same_time(head.stamp, realtime):
        context["timestamp"] = head.stamp
    context.update(head.names)
    ids: dict[str, str | None] = {"trace_id": None, "user_id": None}
    for key, value in head.pairs.items():
        role = head.formats.roles.get(key) or (head.formats.roles.get(folded(key), "") if len(key) > 2 else "")
        if role == "process_id" and head.pid is None and (pid := pid_of(value)) is not None:
            head.pid = pid
        elif role in ids:
            ids[role] = ids[role] or (trace_id_in(value) if role == "trace_id" else given_id(value))
        else:
            context[key] = value
    if not head.exact and not head.keeps_level:
        context["level"] = head.word
    message = text if head.keeps_level else text[head.at :]
    return Parsed(head.level, message, context or None, ids["trace_id"], ids["user_id"], head.pid)


def _read(head: LineHead) -> None:
    line = head.text
    if line[:1] == "<" and (syslog := HEAD_SYSLOG.match(line)) is not None and int(syslog["priority"]) < 192:
        _syslog(head, syslog)
        return
    head.at = HEAD_SPACES.match(line, 0, INDENT).end()  # type: ignore[union-attr]
    if HEAD_RUBY.match(line, head.at):
        head.at += 3
    elif (mark := HEAD_MARK.match(line, head.at)) is not None:
        head.at, head.keeps_level = mark.end(), True
    elif (place := PATH_LINE.match(line, head.at)) is not None and line[head.at] not in "0123456789":
        head.add_name("source", place[0].rstrip(": "))
        head.at, head.separated = place.end(), True
    for _ in range(_MOST_TOKENS):
        if head.at >= len(line):
            return
        if head.level is None:
            if not _before_level(head):
                return
        elif not _after_level(head):
            return


def _syslog(head: LineHead, found: re.Match[str]) -> None:
    """Read a head in the format of RFC 3164 or 5424."""
    priority = found["priority"]
    head.level, head.word, head.exact = SYSLOG_LEVELS[int(priority) & 7], priority, False
    head.stamp = found["iso"] or found["time"]
    head.stamp = None if head.stamp == "-" else head.stamp
    head.add_name("host", found["host"] or found["sender"] or "")
    head.add_name("logger", found["app"] or found["tag"] or "")
    pid = found["pid"] or found["process"] or ""
    head.pid = pid_of(pid)
    if head.pid is None:
        head.add_name("thread", pid)
    head.add_name("message_id", found["id"] or "")
    head.add_name("data", found["data"] or "")
    head.at, head.keeps_level = found.end(), False


def _before_level(head: LineHead) -> bool:
    """Read one token up to the level; return False if it does not belong to a head."""
    line, at = head.text, head.at
    first = line[at]
    if first in HEAD_BRACKETS:
        return _bracket(head, first)
    if head.stamp is None and (stamp := HEAD_TIME.match(line, at)) is not None:
        head.stamp, head.dated = stamp[0], WITH_DATE.match(stamp[0]) is not None
        skip_separator(head, stamp.end())
        head.separated, head.bare_names = True, 0
        return True
    if head.stamp is not None and (uuid := HEAD_UUID.match(line, at)) is not None:
        head.pairs["request_id"] = uuid[0]
        skip_separator(head, uuid.end())
        head.separated = True
        return True
    if (number := HEAD_NUMBER.match(line, at)) is not None:
        if at and head.stamp is None and (line[0] != "[" or len(head.names) != 1):
            return False
        if head.pid is None:
            head.pid = pid_of(number[0].lstrip("#"))
        if head.pid is None or not number[0].isdigit() or head.pid != pid_of(number[0]):
            head.add_name("thread", number[0])
        separated = head.separated
        skip_separator(head, number.end())
        head.separated = head.separated or separated
        return True
    if head.stamp is not None and (pair := HEAD_PAIR.match(line, at)) is not None:
        value = pair[2].strip('"')
        if head.formats.roles.get(pair[1]) == "level" and (level := level_called(head, value)) is not None:
            head.set_level(value, level)
        else:
            head.pairs[pair[1]] = value
        skip_separator(head, pair.end())
        head.separated = True
        return True
    if first == "P" and (php := HEAD_PHP.match(line, at)) is not None:
        head.set_level(php["word"], PHP_LEVELS[php["word"].lower().removeprefix("user ")[0]])
        head.exact, head.keeps_level = True, head.stamp is None
        head.at = HEAD_SPACES.match(line, php.end()).end()  # type: ignore[union-attr]
        return True
    word = HEAD_WORD.match(line, at)
    if word is not None and head.stamp is not None and "/" in word[0] and _in_path(head, word[0], word.end()):
        return True
    return word is not None and (read_bare_level(head, word[0], word.end()) or _bare_name(head, word[0], word.end()))


def _in_path(head: LineHead, word: str, end: int) -> bool:
    """Read host/LEVEL/logger; return whether WORD has that form."""
    parts = word.split("/")
    if len(parts) != 3 or not parts[1].isupper() or (level := level_called(head, parts[1])) is None:
        return False
    head.add_name("host", parts[0])
    head.add_name("logger", parts[2])
    head.set_level(parts[1], level)
    skip_separator(head, end)
    return True


def _bare_name(head: LineHead, word: str, end: int) -> bool:
    """Read a logger, host, thread or program before the level; return False if WORD is part of the message."""
    line = head.text
    rest = LOGGER_REST.match(line, end)
    assert rest is not None
    if rest.end() > end:
        tail = rest[0].lstrip(":").split(":")
        if any(part.isupper() and level_called(head, part) is not None for part in tail):
            # app:ERROR:message, not a logger with colons
            rest = None
    name_end = rest.end() if rest is not None else end
    if word.lower() in NO_LOGGER:
        return False
    following = line[name_end : name_end + 3]
    between = HEAD_SEPARATOR.match(line, name_end)
    assert between is not None
    separated = (
        following[:1] in ("[", "\t", "(", "<")
        or following[:2] in (" [", " <")
        or (between[0].strip() not in ("", ",") and between[0].strip()[0] not in ",;")
        or (following[:1] == "," and head.stamp is not None)
    )
    if head.stamp is None:
        date_first = following[:1] == " " and HEAD_TIME.match(line, name_end + 1 + (following[:2] == "  ")) is not None
        if not (separated or date_first) or len(head.names) >= 3:
            return False
    elif not separated and (head.bare_names >= 3 or (following[:1] != " " and following)):
        return False
    if following[:1] in "(" and following:
        return False if head.stamp is None else _named(head, line[head.at : name_end], name_end)
    return _named(head, line[head.at : name_end], name_end)


def _named(head: LineHead, name: str, end: int) -> bool:
    bare = head.bare_names + 1
    head.add_name("logger", name)
    skip_separator(head, end)
    head.bare_names = 0 if head.separated else bare
    return True


def _bracket(head: LineHead, first: str) -> bool:
    """Read a token in brackets up to the level; return False if it does not belong to a head."""
    line = head.text
    close = line.find(HEAD_BRACKETS[first], head.at + 1, head.at + 160)
    if close < 0:
        return False
    inner = line[head.at + 1 : close].strip()
    end = close + 1
    if first == "[" and inner.startswith("[") and line[end : end + 1] == "]":
        end += 1
    if not inner:
        skip_separator(head, end)
        head.separated = True
        return True
    begins = not line[: head.at].strip()
    is_time = head.stamp is None and HEAD_TIME.fullmatch(inner) is not None
    if first == "<" and head.stamp is None and not head.names and not is_time:
        return False
    level = None if is_time else read_level_in(head, inner, first)
    if level is None:
        if head.stamp is None and not begins and not head.names and head.pid is None:
            return False
        _read_bracket(head, inner, "thread")
        skip_separator(head, end)
        head.separated = True
        return True
    if head.stamp is None and not message_follows(line, end, inner):
        head.level = None
        return False
    skip_separator(head, end)
    return True


def _read_bracket(head: LineHead, inner: str, key: str) -> None:
    """Read INNER, the content of brackets without a level: a time, a process id, pairs, or a name, stored under KEY."""
    if head.stamp is None and (stamp := HEAD_TIME.fullmatch(inner)) is not None:
        head.stamp, head.dated = stamp[0], WITH_DATE.match(stamp[0]) is not None
        return
    if (
        (pid := HEAD_PID.match(inner)) is not None
        and head.pid is None
        and (inner.isdigit() or "pid" in inner or inner[0] == "#")
    ):
        head.pid = pid_of(pid[1])
        if inner != pid[1]:
            head.add_name(key, inner)
        return
    if HEAD_PAIR.match(inner):
        pairs = list(HEAD_PAIR.finditer(inner))
        for pair in pairs:
            head.pairs.setdefault(pair[1], pair[2].strip('"'))
        return
    head.add_name(key, inner)


def _after_level(head: LineHead) -> bool:
    """Read one token between level and message; return False if the message begins."""
    if head.keeps_level:
        return False
    line, at = head.text, head.at
    first = line[at]
    if head.stamp is None and (stamp := HEAD_TIME.match(line, at)) is not None and WITH_DATE.match(stamp[0]):
        head.stamp, head.dated = stamp[0], True
        skip_separator(head, stamp.end())
        return True
    if first in "[({<":
        close = line.find(HEAD_BRACKETS[first], at + 1, at + 160)
        following = line[close + 1 : close + 2]
        if close < 0 or (following not in (" ", ":", "[", "<", "(", "\t", ">") and following):
            return False
        inner = line[at + 1 : close].strip()
        if first == "{" and ("=" in inner or '"' in inner):
            return False
        if inner.isdigit():
            if not (following == ":" or head.stamp is not None) or not line[close + 1 :].strip():
                return False
        elif HEAD_PAIR.match(inner) is not None and head.stamp is not None:
            pass
        elif (
            NAME_BRACKET.match(inner) is None
            and not (head.stamp is not None and line[close + 1 :].lstrip()[:1] in ("[", ":", "-"))
        ) or (head.stamp is None and HEAD_TIME.fullmatch(inner) is None and not _LOGGER_IN_BRACKETS.match(inner)):
            return False
        if not line[close + 1 :].strip(" :-"):
            return False
        _read_bracket(head, inner, "logger" if first == "[" else "thread")
        skip_separator(head, close + 1)
        return True
    if (spring := _SPRING_PID.match(line, at)) is not None:
        head.pid = pid_of(spring[1])
        head.at = spring.end()
        return True
    logger = LOGGER_BEFORE.match(line, at)
    if logger is None or ("logger" in head.names and "." not in logger["name"] and ":" not in logger["name"]):
        return False
    name, end = logger["name"], logger["end"]
    if not _is_logger(head, name, end):
        return False
    head.add_name("logger", name)
    head.at = HEAD_SPACES.match(line, logger.end()).end()  # type: ignore[union-attr]
    return False


def _is_logger(head: LineHead, name: str, end: str) -> bool:
    """Return whether NAME, which END separates from the rest, is a logger rather than part of the message."""
    if end.startswith(" - ") or end == " > ":
        return head.stamp is not None or "." in name
    if name.endswith(_ERROR_NAMES):
        return False
    if end[0] in "\t|":
        return "/" in name or ":" in name or "." in name or head.stamp is not None
    if (
        head.stamp is None
        and head.text.startswith(head.word)
        and head.text[len(head.word) : len(head.word) + 2] == ": "
    ):
        return False
    return name[0].islower() or name[0] in "_" or "." in name[1:-1] or "::" in name or end.startswith(" :")
