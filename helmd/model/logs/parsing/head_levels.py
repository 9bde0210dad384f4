"""Reading a line's level: a level's name in brackets, before a separator or after a time, but not in prose."""

import re

from helmd.model.logs.level import CODES
from helmd.model.logs.parsing.head_tokens import (
    CODE_IN_BRACKETS,
    ERROR_CODE,
    FATAL_ERROR,
    HEAD_TIME,
    LETTER_FOLLOWED,
    LEVEL_FIRST,
    LEVEL_LAST,
    STATED_PLACE,
    WITH_DATE,
    LineHead,
    level_called,
    skip_separator,
)
from helmd.model.logs.parsing.head_words import (
    BELOW_WARNING,
    COLON_CODES,
    COLON_WORDS,
    LOCAL_WORDS,
    OTHER_MEANINGS,
    PROSE_AFTER,
)
from helmd.model.logs.parsing.structured import pid_of


def read_bare_level(head: LineHead, word: str, end: int) -> bool:
    """Read WORD, which is not in brackets and ends at END, if it is a level; return whether it is."""
    line = head.text
    if (both := FATAL_ERROR.match(line, head.at)) is not None and line[both.end() : both.end() + 1] == ":":
        if (head.stamp is None and not head.separated) or (both[0][0] in "rR" and "source" not in head.names):
            return False
        head.keeps_level = head.stamp is None and not head.names
        head.set_level(both[0], "CRITICAL" if both[0][0] in "fF" else "ERROR")
        head.exact = True
        skip_separator(head, both.end())
        return True
    level = level_called(head, word)
    channel, dot, last = word.rpartition(".")
    if level is None and dot and head.stamp is not None and last.isupper() and line[end : end + 1] == ":":
        # Monolog: channel.LEVEL: message
        if (level := level_called(head, last)) is not None:
            head.add_name("logger", channel)
            head.set_level(last, level)
            skip_separator(head, end)
        return level is not None
    upper = word.isupper()
    code = False
    if level is None:
        level, code = CODES.get(word.upper()), True
        if level is None:
            return False
        if not upper and word not in COLON_CODES:
            return False
    following = line[end : end + 3]
    separated_after = (
        following[:1] in (":", "|", "\t", ">", ";")
        or following[:2] in (" -", " |", " :", " >", "  ", " [", " (", " <", " {", " @")
        or (following[:1] in ",/" and following[:1] != "" and head.stamp is not None)
        or (following[:1] == "[" and CODE_IN_BRACKETS.match(line, end) is not None)
        or (following[:2] == "! " and upper)
        or ("source" in head.names and ERROR_CODE.match(line, end) is not None)
        or (following[:1] == " " and head.stamp is None and HEAD_TIME.match(line, end + 1) is not None)
    )
    if following[:2] == "::" or following.startswith((": =", " ==", ":=")):
        return False
    if not _accepted(head, word, level, upper, code, separated_after, following, end):
        return False
    if head.stamp is None and not upper:
        # "Error: no such file" is the program's message.
        head.keeps_level = not head.names
    head.set_level(word, level)
    if following[:1] == "[" and (inner := CODE_IN_BRACKETS.match(line, end)) is not None:
        head.add_name("code", inner[0][1:-1])
        end = inner.end()
    skip_separator(head, end + (following[:2] == "! "))
    if following[:1] == "/" and head.stamp is not None:
        head.at = end + 1
    return True


def _accepted(
    head: LineHead, word: str, level: str, upper: bool, code: bool, separated: bool, following: str, end: int
) -> bool:
    """Return whether WORD, a name of LEVEL before the text FOLLOWING, is the line's level where it is.

    CODE: it is a short name. SEPARATED: a separator follows.
    """
    line = head.text
    at_start = head.stamp is None and not head.names and head.pid is None
    coded = "source" in head.names and ERROR_CODE.match(line, end) is not None
    if len(word) == 1:
        if word in "FP" and head.names.get("logger") in ("stdout", "stderr"):
            return False  # the mark of a full or partial line by container runtimes
        if head.stamp is None or not head.dated or not upper:
            return (
                following[:1] == "/"
                and at_start
                and re.match(r"/[\w.$-]{1,80}\s{0,8}(?:\(\s{0,8}\d+\))?: ", line[end:]) is not None
            )
        if following[:1] in ("|", "/", "\t", ":") or following[:2] in (" |", " [", "  ", "! "):
            return True
        return following[:1] == " " and LETTER_FOLLOWED.match(line, end + 1) is not None
    if word.lower() in OTHER_MEANINGS and not upper:
        return False
    if head.stamp is None:
        if not upper:
            return (
                (head.separated or at_start)
                and (word.lower() in COLON_WORDS or word in COLON_CODES)
                and (following[:2] in (": ", ":\t") or (following[:1] == "[" and separated) or coded)
                and not (level in BELOW_WARNING and " " not in line[end + 2 :].strip() and line[-1] != "]")
            )
        if separated:
            if head.names and not head.separated:
                return False
            if following[:2] == "  " or following[:1] == "\t":
                return not line[end:].lstrip().startswith(("=", "+=")) and bool(line[end:].strip())
            if following[:2] == " (" and code:
                return False
            return bool(line[end:].strip(" \t:|>;-")) or following[:1] == ":"
        if word.lower() in LOCAL_WORDS:
            return False
        at_boundary = at_start or (head.separated and (line[0] in "[0123456789" or line[head.at - 1] == ":"))
        return at_boundary and not code and following[:1] == " " and _no_sentence(line, end + 1, strict=True)
    if separated:
        return (
            upper
            or head.separated
            or head.bare_names == 0
            or (head.bare_names == 1 and following[:2] == ": " and word in COLON_WORDS)
        )
    if following[:1] != " " and following:
        return False
    if not upper and not (head.separated and head.bare_names == 0 and head.dated):
        return False
    return head.bare_names <= 2 and (not following or _no_sentence(line, end + 1, strict=False))


def _no_sentence(line: str, at: int, strict: bool) -> bool:
    """Return whether the text at AT, after a level's name and a space, is a message rather than prose."""
    rest = line[at:]
    first = rest[:1]
    if strict:
        if not (first.isalnum() or first in "_/#\"'"):
            return False
        if not any(character.islower() for character in rest):
            return False
    elif first == "=":
        return False
    if STATED_PLACE.match(rest) is not None:
        return True
    word = rest.split(None, 1)[0] if rest.strip() else ""
    second = rest[len(word) :].lstrip()[:1]
    if strict and second in ("=", "+", "|", "&") and second:
        return False
    return word.lower().rstrip(".,;:)") not in PROSE_AFTER


def message_follows(line: str, end: int, inner: str) -> bool:
    """Return whether a message follows a bracketed level INNER at END, rather than the rest of a link, or nothing."""
    following = line[end : end + 1]
    if not line[end:].strip(" \t:-"):
        return False
    return following in (" ", ":", "\t", "[", "-", ">", "|") or (
        following.isalnum() and inner.isupper() and len(inner) > 2
    )


def read_level_in(head: LineHead, inner: str, bracket: str) -> str | None:
    """Read INNER, the content of brackets that begin with BRACKET, if it is or contains a level; return the level."""
    word = inner.rstrip(" :|")
    level = level_called(head, word)
    if level is None and (word.isupper() or len(word) > 2):
        level = CODES.get(word.upper())
    if level is None and word.isupper() and word.endswith(" WARNING"):
        level = "WARNING"
    if level is not None and (bracket != "<" or head.stamp is not None or (head.names and word.isupper())):
        if bracket == "(" and not word.isupper() and head.stamp is None:
            return None
        head.set_level(word, level)
        return level
    if (
        (stamp := HEAD_TIME.search(inner)) is not None
        and head.stamp is None
        and (stamp.start() == 0 or stamp.start() < 12)
    ):
        return _mixed(head, inner, stamp)
    for pattern in (LEVEL_FIRST, LEVEL_LAST) if bracket in "[<" else ():
        paired = pattern.match(inner)
        if paired is None:
            continue
        word = paired["level"]
        if not word.isupper() and (" " in inner or ("." in inner and "#" not in inner)):
            continue
        level = level_called(head, word) or (CODES.get(word) if len(word) > 1 else None)
        if level is not None:
            head.add_name("logger", paired["name"].strip())
            head.set_level(word, level)
            return level
    return _among(head, inner) if inner.count(":") >= 2 else None


def _among(head: LineHead, inner: str) -> str | None:
    """Read a level among parts separated by colons: [4711:12:1127/230146.123:ERROR:gpu.cc(31)]. Return the level."""
    parts = inner.split(":")
    for number, part in enumerate(parts):
        if len(part) > 3 and part.isupper() and (level := level_called(head, part)) is not None:
            head.add_name("logger", ":".join(parts[number + 1 :]))
            head.add_name("thread", ":".join(parts[:number]))
            head.set_level(part, level)
            return level
    return None


def _mixed(head: LineHead, inner: str, stamp: re.Match[str]) -> str | None:
    """Read a time and more in brackets: [23:01:46 ERR], [E 231127 23:01:46 web:12]. Return the level."""
    before, after = inner[: stamp.start()].strip(" :|,-#@"), inner[stamp.end() :].strip(" :|,-#@")
    head.stamp, head.dated = stamp[0], WITH_DATE.match(stamp[0]) is not None
    if before and " " in before:
        return None
    tokens = [token for token in re.split(r"[\s|,]+|: ", f"{before} {after}"[:160]) if token]
    found = None
    rest = []
    for token in tokens:
        word, slash, name = token.partition("/")
        level = None
        if found is None:
            if word.isupper() or token == before or len(tokens) == 1:
                level = level_called(head, word) or CODES.get(word)
            if level is None and word.isupper() and ":" in word:
                word, slash, name = token.partition(":")
                level = level_called(head, word)
        if level is not None:
            head.set_level(word, level)
            found = level
            if slash and name:
                rest.append(name)
        else:
            rest.append(token)
    for token in rest:
        if token.removeprefix("#").isdigit() and head.pid is None:
            head.pid = pid_of(token.removeprefix("#"))
        else:
            head.add_name("logger", token)
    return found
