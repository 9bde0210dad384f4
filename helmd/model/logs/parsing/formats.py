"""Parsing the text of a line: its level, message, ids and context.

Nothing is lost: everything removed from the message is in another field or in the context. Patterns are matched with
the first 8 KiB of the first line. `helmd.operations.logs.pattern_watchdog` interrupts a pattern that takes too long.
"""

import re
from types import FrameType
from typing import Any

from helmd.model.logs.ids import given_id, trace_id_in
from helmd.model.logs.level import level_of_status, more_severe
from helmd.model.logs.parsing.embedded_time import is_same_time
from helmd.model.logs.parsing.line_head import read_head
from helmd.model.logs.parsing.parsed import Formats, Mention, Parsed, TextFormat, level_of, mentioned_id
from helmd.model.logs.parsing.structured import json_object, logfmt_pairs, parse_object, pid_of

HEAD = 8192
"""Maximum number of characters that patterns are matched with."""

_new = tuple.__new__
"""Makes a named tuple with half the work of calling its class."""
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]"  # CSI, colours among them
    r"|\][^\x07\x1b\n]{0,2048}(?:\x07|\x1b\\)"  # OSC: window titles, links
    r"|[()][0-9A-Z]|[=>78DEHMNOZc])"
)
"""Escape sequences of terminals (ECMA-48, xterm)."""

_REQUEST = re.compile(
    r'"(?P<method>[A-Z]{3,20}) (?:[^"\s]{1,4000} HTTP/\d(?:\.\d)?"(?: from \S{1,100} -)?|/[^"\s]{0,4000}") '
    r"(?P<status>[1-5]\d\d)(?![\w.])"
)
"""Request and status in an access line that no format matches."""


def parse_text(formats: Formats, text: str, service: str, realtime: int) -> Parsed:
    """Parse TEXT, without NUL and lone surrogates, of SERVICE.

    A time in it that is the same as REALTIME, the journal's time in microseconds since 1970, is dropped. Raises
    RunawayError.
    """
    bare = text if "\x1b" not in text else without_escapes(text)
    parsed = _parse(formats, bare, service, realtime)
    # By index, which takes less time than by name.
    message, trace_id, user_id = parsed[1], parsed[3], parsed[4]
    if bare is not text or "\x1b" in message:
        # JSON strings may contain escape sequences as \u001b.
        message = without_escapes(message)
        if bare != text or message != parsed.message:
            parsed = parsed._replace(message=message, context={"ansi": True, **(parsed.context or {})})
    # Most messages contain no id; the first test is here, since it takes less time than the call.
    trace, user = formats.trace, formats.user
    if trace is not None and trace_id is None and trace.common in message:
        trace_id = mentioned_id(trace, message)
        if trace_id is not None:
            parsed = parsed._replace(trace_id=trace_id)
    if user is not None and user_id is None and user.common in message:
        user_id = mentioned_id(user, message)
        if user_id is not None:
            parsed = parsed._replace(user_id=user_id)
    return parsed


def without_escapes(text: str) -> str:
    """Return TEXT without escape sequences of terminals."""
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def _parse(formats: Formats, text: str, service: str, realtime: int, inner: bool = False) -> Parsed:
    table = formats.services.get(service) or formats.common
    forms = table.get(text[:1])
    headed = None
    looked = False
    for form in table[""] if forms is None else forms:
        if form.needle not in text:
            continue
        if form.late and not looked:
            headed, looked = read_head(formats, text, realtime), True
            if headed is not None:
                break
        if form.kind == "pattern":
            parsed = _by_pattern(formats, form, text, realtime)
            if parsed is None:
                continue
        else:
            given = json_object(text) if form.kind == "json" else _logfmt(formats, text)
            if given is None:
                continue
            parsed = parse_object(formats, given, text, realtime, form.complete)
            if parsed.level is None and parsed.message is not text and not inner:
                parsed = _by_message(formats, parsed, realtime)
        # Messages are parsed once only, since hostile text could nest without limit.
        if form.again and not inner:
            return _within(parsed, _parse(formats, parsed.message, service, realtime, inner=True))
        return _with_inside(formats, parsed, form, service, realtime)
    if not looked:
        headed = read_head(formats, text, realtime)
    if headed is None:
        headed = _new(Parsed, (None, text, None, None, None, None, False))
        if '"' not in text:
            return headed
    if '"' not in headed.message:
        return headed if inner or headed.level is None else _with_inside(formats, headed, None, service, realtime)
    if (request := _REQUEST.search(headed.message, 0, HEAD)) is None:
        return headed if headed.level is None else _with_inside(formats, headed, None, service, realtime)
    level = more_severe(headed.level, level_of_status(int(request["status"])))
    context = {**(headed.context or {}), "method": request["method"], "status": int(request["status"])}
    if headed.level not in (None, level):
        context.setdefault("level", headed.level)
    return headed._replace(level=level, context=context, complete=True)


def _by_message(formats: Formats, outer: Parsed, realtime: int) -> Parsed:
    """Return OUTER, an object without a level, combined with the head of its message."""
    headed = read_head(formats, outer.message.rstrip("\n"), realtime)
    return outer if headed is None else _within(outer, headed)


def _logfmt(formats: Formats, text: str) -> dict[str, Any] | None:
    """Return the pairs of a logfmt line, or None if TEXT is not one, or has no key of a message or level."""
    pairs = logfmt_pairs(text)
    if pairs is None or not any(formats.roles.get(key) in ("message", "level") for key in pairs):
        return None
    return pairs


def _by_pattern(formats: Formats, form: TextFormat, text: str, realtime: int) -> Parsed | None:
    head = text
    if len(text) > HEAD or "\n" in text:
        head = text.partition("\n")[0][:HEAD]
    assert form.pattern is not None
    found = form.pattern.match(head)
    if found is None:
        return None
    groups: dict[str, Any] = {}
    for name, value in zip(form.groups, found.groups(), strict=True):
        if value and value != "-" and name:
            groups[name] = value
    level = form.level
    if (word := found["level"] if "level" in form.groups else None) is not None:
        known = level_of(form.levels or formats.levels, word)
        if known is None and level is None:
            return None
        if known is not None:
            level = known[0]
            if known[1]:
                groups.pop("level", None)
    if (status := groups.get("status")) is not None and status.isdecimal():
        groups["status"] = number = int(status[:9])
        stated = level
        level = more_severe(level, level_of_status(number))
        if word is not None and level != stated:
            groups["level"] = word
    message = text
    if "message" in form.groups:
        whole = _message(found, groups, text)
        if whole is None:
            return None
        message = whole
    if (stamp := groups.get("timestamp")) is not None and is_same_time(stamp, realtime):
        del groups["timestamp"]
    pid = None
    if (digits := groups.get("pid")) is not None and (pid := pid_of(digits)) is not None:
        del groups["pid"]
    for name in form.numbers:
        value = groups.get(name)
        if value is not None and value.isdecimal() and len(value) <= 18:
            groups[name] = int(value)
    trace_id, user_id = groups.pop("trace_id", None), groups.pop("user_id", None)
    trace_id = None if trace_id is None else trace_id_in(trace_id)
    user_id = None if user_id is None else given_id(user_id)
    return Parsed(level, message, groups or None, trace_id, user_id, pid, form.complete)


def may_match_inside(formats: Formats, message: str, service: str) -> bool:
    """Return whether `parse_message` would try a pattern."""
    bare = without_escapes(message)
    return any(needle in bare and (not form.services or service in form.services) for needle, form in formats.inside)


def parse_message(formats: Formats, message: str, service: str, realtime: int) -> Parsed:
    """Parse the message of a posted entry by the formats for messages.

    The message of the result is that of `parse_text` for the same line printed. Raises RunawayError.
    """
    bare = without_escapes(message)
    for needle, form in formats.inside:
        if needle in bare and (not form.services or service in form.services):
            found = _by_pattern(formats, form, bare, realtime)
            if found is not None:
                return found
    return Parsed(None, bare)


def _message(found: re.Match[str], groups: dict[str, Any], text: str) -> str | None:
    """Return the group "message" with the rest of TEXT after the match, or None if the group did not match."""
    message = found["message"]
    if message is None:
        return None
    groups.pop("message", None)
    rest = text[found.end() :]
    if not rest:
        return message
    if found.end("message") == found.end():
        return message + rest
    if "\n" in rest or len(rest) > HEAD:
        return text
    if rest.strip():
        groups["rest"] = rest.strip()
    return message


def _with_inside(formats: Formats, outer: Parsed, form: TextFormat | None, service: str, realtime: int) -> Parsed:
    """Return OUTER, the result of FORM if it is one of formats.toml, combined with a format for its message."""
    message = outer.message
    for needle, other in formats.inside:
        if needle in message and other is not form and (not other.services or service in other.services):
            found = _by_pattern(formats, other, message, realtime)
            if found is not None:
                return _within(outer, found)
    return outer


def _within(outer: Parsed, inner: Parsed) -> Parsed:
    """Return OUTER combined with INNER, the result for its message: the more severe level, and both contexts."""
    level = more_severe(outer.level, inner.level)
    context = dict(outer.context or {})
    if outer.level is not None and level != outer.level:
        context.setdefault("level", outer.level)
    for key, value in (inner.context or {}).items():
        context[key if context.get(key, value) == value else f"inner_{key}"] = value
    return Parsed(
        level,
        inner.message,
        context or None,
        outer.trace_id or inner.trace_id,
        outer.user_id or inner.user_id,
        outer.process_id or inner.process_id,
        outer.complete or inner.complete,
    )


def running_pattern(frame: FrameType) -> re.Pattern[str] | None:
    """Return the pattern being matched if FRAME is the innermost frame of a thread, or None if there is none."""
    if frame.f_code is _by_pattern.__code__:
        form: TextFormat = frame.f_locals["form"]
        return form.pattern
    if frame.f_code is mentioned_id.__code__:
        mention: Mention | None = frame.f_locals["mention"]
        return None if mention is None else mention.pattern
    return None
