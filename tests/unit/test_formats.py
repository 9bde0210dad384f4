"""What the text of a line says: the suite's own samples, every other form in `formats.toml`, and hostile lines."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import ConfigurationError
from helmd.model.layout import layout
from helmd.model.logs.level import LEVELS
from helmd.model.logs.parsing.embedded_time import is_same_time
from helmd.model.logs.parsing.format_schema import read_formats
from helmd.model.logs.parsing.formats import parse_text
from helmd.model.logs.parsing.multiline import Joiner
from helmd.model.logs.parsing.parsed import Formats, Parsed
from helmd.model.logs.timestamps import iso_timestamp
from helmd.operations.configuration.load import load_formats
from tests.fixtures import PrintedLine, printed_lines

TOP = Path(__file__).resolve().parents[2]
OWN = ConfigSource("own", (TOP / "formats.toml").read_text())
FORMATS = read_formats([OWN])
WHEN = iso_timestamp("2026-11-23T06:10:34Z") or 0


def said(text: str, service: str = "core", formats: Formats = FORMATS, when: int = WHEN) -> Parsed:
    return parse_text(formats, text, service, when)


def plain(message: str) -> Parsed:
    return Parsed(None, message)


def access(level: str, message: str, context: dict[str, object]) -> Parsed:
    return Parsed(level, message, context, complete=True)


HEALTH: dict[str, object] = {
    "client": "127.0.0.1",
    "method": "GET",
    "path": "/health",
    "protocol": "HTTP/1.1",
    "status": 200,
}


def stated_time(text: str) -> int:
    """Return when a line of the fixtures was printed: to the second, what it states itself."""
    found = re.search(r"2026-11-24.(06:\d\d:\d\d)|24/Nov/2026.(06:\d\d:\d\d)", text)
    return iso_timestamp(f"2026-11-24T{found.group(1) or found.group(2)}Z") or 0 if found else WHEN


SUITE = printed_lines()


@pytest.mark.parametrize("printed", SUITE, ids=str)
def test_lines_of_the_suite(printed: PrintedLine) -> None:
    expected = Parsed(**{"level": None, "message": printed.line, **printed.read})
    assert said(printed.line, printed.service, when=stated_time(printed.line)) == expected
    if printed.line.startswith("{"):
        escaped = json.dumps(json.loads(printed.line))
        assert said(escaped, printed.service, when=stated_time(printed.line)) == expected


OTHERS: list[tuple[str, Parsed]] = [
    ("DEBUG:asyncio:Using selector", Parsed("DEBUG", "Using selector", {"logger": "asyncio"})),
    ("CRITICAL:a.b-c:x:y", Parsed("CRITICAL", "x:y", {"logger": "a.b-c"})),
    ("INFO:root:", Parsed("INFO", "", {"logger": "root"})),
    ("INFO:     Application startup complete.", Parsed("INFO", "Application startup complete.")),
    (
        "INFO  [alembic.runtime.migration] Context impl X.",
        Parsed("INFO", "Context impl X.", {"logger": "alembic.runtime.migration"}),
    ),
    ("2026-11-23 06:10:34,258 - app.db - ERROR - no", Parsed("ERROR", "no", {"logger": "app.db"})),
    ("2026-11-23 07:10:34,258 - app - WARNING - local", Parsed("WARNING", "local", {"logger": "app"})),
    (
        "2026-11-22 06:10:34,258 - app - WARNING - late",
        Parsed("WARNING", "late", {"timestamp": "2026-11-22 06:10:34,258", "logger": "app"}),
    ),
    ("2026-11-23 06:10:34,258 - INFO - no logger", Parsed("INFO", "no logger")),
    ("2026-11-23 06:10:34,258 ERROR app.db: no", Parsed("ERROR", "no", {"logger": "app.db"})),
    (
        "2026-11-23 06:10:34.258 [main] WARN  c.x.Foo - no",
        Parsed("WARNING", "no", {"thread": "main", "logger": "c.x.Foo"}),
    ),
    ("2026-11-23T06:10:34.258+00:00 ERROR Exception: no", Parsed("ERROR", "Exception: no")),
    ("2026-11-23 06:10:34 [info     ] started port=1", Parsed("INFO", "started port=1")),
    ("2026-11-23 06:10:34 error in something", plain("2026-11-23 06:10:34 error in something")),
    ("[2026-11-23 06:10:34,258] ERROR in app: Exception on /", Parsed("ERROR", "Exception on /", {"module": "app"})),
    ("[2026-11-23 06:10:34,258: INFO/MainProcess] up", Parsed("INFO", "up", {"process": "MainProcess"})),
    ("[2026-11-23 06:10:34 +0000] [7] [CRITICAL] WORKER TIMEOUT", Parsed("CRITICAL", "WORKER TIMEOUT", process_id=7)),
    ("[2026-11-23 06:10:34 +0000] [7] [STRANGE] x", plain("[2026-11-23 06:10:34 +0000] [7] [STRANGE] x")),
    (
        "2026/11/23 06:10:34 [error] 12#13: *5 connect() failed (111: Connection refused), client: 1.2.3.4",
        Parsed(
            "ERROR",
            "connect() failed (111: Connection refused), client: 1.2.3.4",
            {"thread": "13", "connection": 5},
            process_id=12,
        ),
    ),
    (
        "2026/11/23 06:10:34 [emerg] 12#12: no",
        Parsed("CRITICAL", "no", {"level": "emerg", "thread": "12"}, process_id=12),
    ),
    ("[12] LOG:  ready", Parsed("INFO", "ready", {"level": "LOG"}, process_id=12)),
    (
        '[12] helm@helm ERROR:  relation "x" does not exist',
        Parsed("ERROR", 'relation "x" does not exist', {"user": "helm", "database": "helm"}, process_id=12),
    ),
    (
        "2026-11-23 06:10:34.258 UTC [12] [unknown]@[unknown] FATAL:  no",
        Parsed("ERROR", "no", {"user": "[unknown]", "database": "[unknown]", "level": "FATAL"}, process_id=12),
    ),
    ("[12] PANIC:  could not write", Parsed("CRITICAL", "could not write", {"level": "PANIC"}, process_id=12)),
    ("[12] WARNING:  worry", Parsed("WARNING", "worry", process_id=12)),
    ("[12] HINT:  try", Parsed("INFO", "try", {"level": "HINT"}, process_id=12)),
    ("[12] DEBUG3:  detail", Parsed("DEBUG", "detail", {"level": "DEBUG3"}, process_id=12)),
    (
        "7:M 23 Nov 2026 06:10:34.258 # Server is low on memory",
        Parsed("WARNING", "Server is low on memory", {"role": "M", "level": "#"}, process_id=7),
    ),
    ("<4>low on space", Parsed("WARNING", "low on space")._replace(context={"level": "4"})),
    ("<6>ERROR:root:x", Parsed("ERROR", "x", {"logger": "root", "level": "6"})),
    ("<6><3>x", Parsed("ERROR", "x", {"level": "6", "inner_level": "3"})),
    ("<9>x", plain("<9>x")),
    (
        'level=warn msg="a \\"b\\"" trace_id=t-1 user_id=null port=17',
        Parsed("WARNING", 'a "b"', {"port": "17"}, "t-1", complete=True),
    ),
    ("time=2026-11-23T06:10:34Z level=INFO msg=hello", Parsed("INFO", "hello", complete=True)),
    ("a=1 b=2", plain("a=1 b=2")),
    ("level=info and then words", plain("level=info and then words")),
    ("level=info level=debug msg=x", plain("level=info level=debug msg=x")),
    (
        'INFO:     127.0.0.1:5432 - "GET /x HTTP/1.1" 500 Internal Server Error',
        access(
            "ERROR",
            '"GET /x HTTP/1.1" 500',
            {
                "client": "127.0.0.1",
                "client_port": 5432,
                "method": "GET",
                "path": "/x",
                "protocol": "HTTP/1.1",
                "status": 500,
                "reason": "Internal Server Error",
                "level": "INFO",
            },
        ),
    ),
    (
        '::1 [23/Nov/2026:06:10:34 +0000] "POST /a HTTP/1.1" 404 17 "http://x/" "cu\\"rl"',
        access(
            "WARNING",
            '"POST /a HTTP/1.1" 404',
            {
                "client": "::1",
                "method": "POST",
                "path": "/a",
                "protocol": "HTTP/1.1",
                "status": 404,
                "bytes": 17,
                "referer": "http://x/",
                "agent": 'cu\\"rl',
            },
        ),
    ),
    (
        '1.2.3.4 - bob [23/Nov/2026:06:10:34 +0000] "\\x16\\x03" 400 150 "-" "-" "1.1.1.1"',
        access(
            "WARNING",
            '"\\x16\\x03" 400',
            {"client": "1.2.3.4", "user": "bob", "status": 400, "bytes": 150, "rest": '"1.1.1.1"'},
        ),
    ),
    (
        "127.0.0.1 - - [23/Nov/2026 06:10:34] code 400, message Bad request version ('x')",
        access("WARNING", "Bad request version ('x')", {"client": "127.0.0.1", "status": 400}),
    ),
    (
        '127.0.0.1 - - [23/Nov/2026 06:10:34] \x1b[31m\x1b[1m"GET /health HTTP/1.1" 503 -\x1b[0m',
        access("ERROR", '"GET /health HTTP/1.1" 503', {"ansi": True} | HEALTH | {"status": 503}),
    ),
    (
        "\x1b[1;32mINFO\x1b[0m: \x1b]8;;http://x\x1b\\link\x1b]8;;\x07 a\x07b",
        Parsed("INFO", "link a\x07b", {"ansi": True}),
    ),
    ("\x1b not one", plain("\x1b not one")),
    ("", plain("")),
    ("did it trace_id=abc-1.", Parsed(None, "did it trace_id=abc-1.", trace_id="abc-1")),
    ("[trace: 4bf9] did it", Parsed(None, "[trace: 4bf9] did it", trace_id="4bf9")),
    (
        "X-Correlation-ID: 8d7e-f for user_id=17",
        Parsed(None, "X-Correlation-ID: 8d7e-f for user_id=17", None, "8d7e-f", "17"),
    ),
    ("correlation_id=None userId=null", plain("correlation_id=None userId=null")),
    ("a trace of it", plain("a trace of it")),
    ("INFO:app:x trace_id=" + "f" * 400, Parsed("INFO", "x trace_id=" + "f" * 400, {"logger": "app"}, "f" * 400)),
]


@pytest.mark.parametrize(("text", "expected"), OTHERS, ids=lambda value: ascii(value)[:40])
def test_other_lines(text: str, expected: Parsed) -> None:
    assert said(text) == expected


OBJECTS: list[tuple[dict[str, Any] | str, Parsed]] = [
    ({"level": "info", "msg": "pinned"}, Parsed("INFO", "pinned")),
    ({"levelname": "WARN", "event": "e", "asctime": "2026-11-23 06:10:34,1"}, Parsed("WARNING", "e")),
    ({"severity": "NOTICE", "message": "m"}, Parsed("INFO", "m", {"severity": "NOTICE"})),
    ({"lvl": "strange", "message": "m"}, Parsed(None, "m", {"lvl": "strange"})),
    ({"level": 30, "time": WHEN // 1000, "pid": 5, "msg": "pino"}, Parsed("INFO", "pino", {"level": 30}, process_id=5)),
    ({"level": 3, "msg": "syslog"}, Parsed("ERROR", "syslog", {"level": 3})),
    ({"level": True, "msg": "m"}, Parsed(None, "m", {"level": True})),
    ({"level": ["x"], "msg": {"a": 1}}, Parsed(None, '{"a": 1}', {"level": ["x"]})),
    ({"level": None, "message": None, "msg": "m", "trace_id": None}, Parsed(None, "m")),
    ({"message": "m", "msg": "other"}, Parsed(None, "m", {"msg": "other"})),
    ({"msg": "other", "message": "m"}, Parsed(None, "m", {"msg": "other"})),
    ({"message": 17}, Parsed(None, "17")),
    ({"message": ""}, Parsed(None, "")),
    ({"message": "m", "trace_id": 17, "user_id": 1.5}, Parsed(None, "m", None, "17", "1.5")),
    ({"message": "m", "trace_id": "", "user_id": " "}, Parsed(None, "m")),
    ({"message": "m", "traceId": ["a"], "user": {"id": "u", "name": "U"}},
     Parsed(None, "m", {"traceId": ["a"], "user": {"name": "U"}}, None, "u")),
    ({"message": "m", "requestId": "r", "correlation_id": "c"}, Parsed(None, "m", {"requestId": "r"}, "c")),
    ({"message": "m trace_id=t"}, Parsed(None, "m trace_id=t", None, "t")),
    ({"message": "m", "process": "MainProcess"}, Parsed(None, "m", {"process": "MainProcess"})),
    ({"message": "m", "pid": -1}, Parsed(None, "m", {"pid": -1})),
    ({"message": "m", "pid": "17"}, Parsed(None, "m", process_id=17)),
    ({"message": "m", "timestamp": "yesterday"}, Parsed(None, "m", {"timestamp": "yesterday"})),
    ({"message": "m", "ts": WHEN / 1e6 + 3}, Parsed(None, "m", {"ts": WHEN / 1e6 + 3})),
    ({"message": "m", "ts": WHEN / 1e6 + 1}, Parsed(None, "m")),
    ({"log": {"level": "error", "logger": "x"}, "message": "m"}, Parsed("ERROR", "m", {"log": {"logger": "x"}})),
    ({"log.level": "error", "message": "m", "trace.id": "t"}, Parsed("ERROR", "m", None, "t")),
    ({"message": "m", "extra": {"trace_id": "t", "k": 1}}, Parsed(None, "m", {"extra": {"k": 1}}, "t")),
    ({"message": "m", "mdc": {"userId": "u"}, "extra": None}, Parsed(None, "m", None, None, "u")),
    ({"log": "line\n", "stream": "stdout"}, Parsed(None, "line\n", {"stream": "stdout"})),
    ({"text": "t", "record": {"level": {"name": "ERROR", "no": 40}, "message": "m"}},
     Parsed("ERROR", "t", {"record": {"level": {"name": "ERROR", "no": 40}, "message": "m"}})),
    ({"count": 3}, Parsed(None, '{"count": 3}', {"count": 3})),
    ({}, Parsed(None, "{}")),
    ({"level": "INFO", "logger": "werkzeug", "message": '1.1.1.1 - - [23/Nov/2026 06:10:34] "GET / HTTP/1.1" 500 -'},
     Parsed("ERROR", '"GET / HTTP/1.1" 500',
            {"client": "1.1.1.1", "method": "GET", "path": "/", "protocol": "HTTP/1.1", "status": 500,
             "logger": "werkzeug", "level": "INFO"})),
    ({"message": "\x1b[31mred\x1b[0m"}, Parsed(None, "red", {"ansi": True})),
    ({"message": "é\U0001f600", "k": "\0x"}, Parsed(None, "é\U0001f600", {"k": "\ufffdx"})),
    ('{"message": "a\\u0000\\ud800b\\ud83d\\ude00", "\\u0000k": ["\\udfff"]}',
     Parsed(None, "a\ufffd\ufffdb\U0001f600", {"\ufffdk": ["\ufffd"]})),
    ('{"message": "m", "a": NaN, "b": [-Infinity, 1e999], "c": 1.5}',
     Parsed(None, "m", {"a": "NaN", "b": ["-Infinity", "1e999"], "c": 1.5})),
    ('{"message": "m", "n": ' + "9" * 5000 + ', "k": 7}', Parsed(None, "m", {"n": "9" * 5000, "k": 7})),
    ('{"message": "first", "message": "last", "level": "ERROR"}  \r', Parsed("ERROR", "last")),
    ('{"message": "tab\there"}', Parsed(None, "tab\there")),
]  # fmt: skip


@pytest.mark.parametrize(("given_object", "expected"), OBJECTS, ids=lambda value: ascii(value)[:40])
def test_objects(given_object: dict[str, Any] | str, expected: Parsed) -> None:
    text = given_object if isinstance(given_object, str) else json.dumps(given_object)
    assert said(text) == expected._replace(complete=True)


DEEP = '{"message": "m", "level": "ERROR", "a": ' + '{"a":' * 63 + "1" + "}" * 63 + "}"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}x",
        '{"message": "m"',
        "{'message': 'm'}",
        '{"a": 1} trailing',
        "[1, 2]",
        "17",
        '"text"',
        "{" * 100_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        DEEP.replace('{"a":1}', '{"a":[1]}'),
    ],
    ids=lambda text: text[:20],
)
def test_no_object_or_too_deep_a_one_is_text(text: str) -> None:
    assert said(text) == plain(text)


def test_as_deep_as_may_be() -> None:
    assert said(DEEP).level == "ERROR"
    assert json.dumps(said(DEEP).context).count('"a"') == 64


def test_lines_of_a_megabyte() -> None:
    fields = {f"key{n}": "v" * 100 for n in range(9000)}
    large = said(json.dumps({"level": "ERROR", "message": "x" * 100_000} | fields))
    assert (large.level, len(large.message), large.context) == ("ERROR", 100_000, fields)
    assert said("INFO:app:" + "x" * 1_000_000) == Parsed("INFO", "x" * 1_000_000, {"logger": "app"})


@pytest.mark.parametrize(
    "text",
    ["\x1b[" * 500_000, "\x1b]" * 500_000, "a" * 10**6, "a=" * 500_000, 'a="' * 300_000, "trace_id=" * 100_000,
     "[" * 10**6, "127.0.0.1 - - [23/Nov/2026 06:10:34] \"" + "\\" * 10**6, "\u0661" * 10**6, "<6>" * 300_000,
     "1" * 10**6, "user_id" * 100_000, " " * 10**6, '{"\\u' * 200_000, '] "' * 300_000],
    ids=lambda text: ascii(text)[:20],
)  # fmt: skip
def test_hostile_lines_take_no_time(text: str) -> None:
    """All read in milliseconds; patterns that try all ways would not come back."""
    begun = time.process_time()
    parsed = said(text)
    assert time.process_time() - begun < 5
    assert parsed.level in (None, "INFO")


def test_what_follows_the_first_line_is_kept() -> None:
    more = "\n".join(["Traceback (most recent call last):", '  File "x.py"', "ValueError: x"])
    assert said(f"ERROR:app:no\n{more}") == Parsed("ERROR", f"no\n{more}", {"logger": "app"})
    access_line = next(printed.line for printed in SUITE if printed.style == "access, common")
    assert said(f"{access_line}\n{more}").message == f"{access_line}\n{more}"
    assert said(f"plain\nERROR:app:{more}") == plain(f"plain\nERROR:app:{more}")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.one_of(st.sampled_from(sorted(FORMATS.roles)), st.text(st.characters(), max_size=8))


def storable(value: object) -> None:
    """Fails where PostgreSQL would refuse the value."""
    text = json.dumps(value, allow_nan=False)
    assert "\\u0000" not in text.replace("\\\\", "")
    json.dumps(value, ensure_ascii=False).encode()


@given(st.dictionaries(KEYS, JSON_VALUES, max_size=6), st.booleans())
@settings(max_examples=60)
def test_any_object_can_be_stored(value: dict[str, Any], escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped).replace("\0", "").encode("utf-8", "replace").decode()
    parsed = said(text)
    storable(parsed.context)
    for column in (parsed.message, parsed.trace_id, parsed.user_id):
        assert column is None or "\0" not in column
        storable(column)
    assert parsed.level is None or parsed.level in LEVELS
    assert parsed.complete


LEADS = ["INFO:", "[2026-11-23 06:10:34] ", "2026-11-23 06:10:34 ", "{", "<3>", "127.0.0.1 - - [", "a=", "\x1b[", ""]


@given(st.sampled_from(LEADS), st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")))
def test_any_text_is_read(lead: str, text: str) -> None:
    parsed = said(lead + text)
    storable(parsed.context)
    if parsed.level is None and parsed.context is None:
        assert parsed.message == lead + text


@given(
    st.sampled_from([printed.line for printed in SUITE] + [text for text, _ in OTHERS if "\x1b" not in text]), st.data()
)
def test_nothing_is_lost(text: str, drawn: st.DataObject) -> None:
    """Every word of a line can be found again, wherever it went (but for a time that says nothing new)."""
    cut = drawn.draw(st.integers(0, len(text)))
    line = text[:cut]
    parsed = parse_text(FORMATS, line, "core", 0)
    kept = " ".join([parsed.message, json.dumps(parsed.context, ensure_ascii=False), parsed.level or "",
                     parsed.trace_id or "", parsed.user_id or "", str(parsed.process_id)])  # fmt: skip
    kept = kept.replace("\\", "").lower()
    words = re.findall(r"[\w.]+", line.replace("\\", ""))
    assert [word for word in words if word.strip(".").lower() not in kept and word not in ABSENT] == []


ABSENT = {
    "null",
    "None",
    "WARN",
    "warn",
    "code",
    "message",
    "level",
    "msg",
    "time",
    "user_id",
    "trace_id",
    "correlation_id",
    "in",
}
"""What is framing: names of fields that have columns, and words for nothing."""


@pytest.mark.parametrize(
    ("stated", "agrees"),
    [
        ("2026-11-23T06:10:34Z", True),
        ("2026-11-23T06:10:34", True),
        ("2026-11-23 06:10:34,123", True),
        ("2026-11-23T06:10:34.123456789+00:00", True),
        ("2026-11-23T06:10:34.12x", False),
        ("2026-11-23T06:10:34.\u0663Z", False),
        ("2026-11-23T06:10:34x", False),
        ("2026-11-23T06:10:34+02:00", False),
        ("2026-11-23T06:10:35.999999Z", True),
        ("2026-11-23T06:10:36.000001Z", False),
        ("2026-11-23T07:10:34+01:00", True),
        ("2026-11-23T07:10:34Z", False),
        ("2026-11-23 07:10:34", True),
        ("2026-11-23 11:55:33,5", True),
        ("2026-11-23 11:50:33", False),
        ("2026-11-24 06:10:34", False),
        ("2026-11-23 06:10:34 +0000", True),
        ("2026-11-23 06:10:34 UTC", True),
        ("2026-11-23 01:10:34 -0500", True),
        ("2026/11/23 06:10:34", True),
        ("23/Nov/2026:06:10:34 +0000", True),
        ("23/Nov/2026:07:10:34 +0100", True),
        ("23/Nov/2026 06:10:33", True),
        ("23 Nov 2026 06:10:34.258", True),
        ("Nov 23 06:10:34", False),
        ("9999-12-31T23:59:59-14:00", False),
        ("0001-01-01T00:00:00+14:00", False),
        ("06:10:34", False),
        ("", False),
        ("x" * 10_000, False),
        (WHEN // 1_000_000, True),
        (WHEN / 1_000_000, True),
        (WHEN // 1_000, True),
        (WHEN, True),
        (WHEN * 1000, True),
        (WHEN // 1_000_000 + 3, False),
        (0, False),
        (-1, False),
        (1e300, False),
        (float("nan"), False),
        (True, False),
        (None, False),
        (["2026"], False),
    ],
)
def test_stated_times(stated: object, agrees: bool) -> None:
    assert is_same_time(stated, WHEN) is agrees


def with_file(text: str) -> Formats:
    return read_formats([OWN, ConfigSource("mine", text)])


def test_a_format_of_ones_own() -> None:
    formats = with_file(
        "[pieces]\nid = '[a-z]+-[0-9]+'\n"
        "[formats.mine]\npattern = '(?P<level>[A-Z]{2}) (?P<trace_id>@id@) n=(?P<n>\\d+) (?P<message>.*)'\n"
        'first = "OB"\nlevels = { OK = "info", BD = "error" }\nnumbers = ["n"]\nservices = ["tickets"]\n'
    )
    assert said("BD ab-1 n=7 it is", "tickets", formats) == Parsed("ERROR", "it is", {"level": "BD", "n": 7}, "ab-1")
    assert said("BD ab-1 n=7 it is", "core", formats) == plain("BD ab-1 n=7 it is")
    assert said("XX ab-1 n=7 it is", "tickets", formats) == plain("XX ab-1 n=7 it is")
    assert said("INFO:a:b", "tickets", formats) == Parsed("INFO", "b", {"logger": "a"})


def test_ones_own_comes_first_and_may_have_a_fixed_level() -> None:
    formats = with_file("[formats.mine]\npattern = 'INFO:(?P<message>.*)'\nlevel = \"warn\"\n")
    assert said("INFO:a:b", formats=formats) == Parsed("WARNING", "a:b")


def test_formats_changed_and_switched_off() -> None:
    formats = with_file("[formats.json]\nenabled = false\n[formats.redis]\nlevel = 'error'\nservices = ['core']\n")
    assert said('{"level": "INFO"}', formats=formats) == plain('{"level": "INFO"}')
    redis = "7:M 23 Nov 2026 06:10:34.258 # b"
    assert said(redis, "core", formats).level == "WARNING"
    assert said(redis, "nexus", formats) == plain(redis)


def test_more_keys_and_words() -> None:
    formats = with_file(
        '[fields]\nmessage = ["what"]\ntrace_id = ["flow"]\nnested = ["inner"]\n[levels]\nHuch = "error"\n'
        "[mentions.trace_id]\nwords = ['flow']\npattern = 'flow (?P<id>\\w+)'\n"
    )
    text = '{"what": "w", "message": "m", "inner": {"flow": 7}, "level": "HUCH"}'
    assert said(text, formats=formats) == Parsed("ERROR", "w", {"message": "m", "level": "HUCH"}, "7", complete=True)
    assert said("in flow abc", formats=formats).trace_id == "abc"


FAULTS = [
    ("x = 1\n", ["mine:1: x: is not a known table"]),
    ("[formats]\nmine = 1\n", ["mine:2: formats.mine: must be a table"]),
    ("formats = 1\n", ["mine:1: formats: must be a table"]),
    ("[formats.Mine]\npattern = 'x'\n", ["mine:1: formats.Mine: a name is"]),
    (
        "[formats.mine]\n\npattern = '(x'\n",
        ["mine:3: formats.mine.pattern: is not a valid regular expression (missing )"],
    ),
    ("[formats.mine]\npattern = '@nothing@'\n", ["mine:2: formats.mine.pattern: there is no piece 'nothing'"]),
    ("[formats.mine]\npattern = 'x'\nlevel = 'loud'\n", ["mine:3: formats.mine.level: unknown level 'loud'"]),
    ("[formats.mine]\npattern = 'x'\nlevels = { A = 1 }\n", ["mine:3: formats.mine.levels: must be text"]),
    (
        "[formats.mine]\npattern = 'x'\nnumbers = ['n']\n",
        ["mine:3: formats.mine.numbers: the pattern has no group 'n'"],
    ),
    (
        "[formats.mine]\npattern = 'x'\nservices = ['../x']\n",
        ["mine:3: formats.mine.services: '../x' is not a service"],
    ),
    (
        "[formats.mine]\npatern = 'x'\n",
        ["mine:1: formats.mine: has no pattern", "mine:2: formats.mine.patern: is not a known"],
    ),
    ("[formats.gunicron]\nenabled = false\n", ["mine:1: formats.gunicron: has no pattern, and there is no format"]),
    ("[formats.json]\nenabled = 'no'\n", ["mine:2: formats.json.enabled: must be true or false"]),
    ("[formats.json]\nkind = 'xml'\n", ["mine:2: formats.json.kind: must be one of pattern, json, logfmt"]),
    ("[formats.json]\nfirst = ''\n", ["mine:2: formats.json.first: must name at least one character"]),
    (
        "[fields]\nlevel = 'x'\nlevle = []\n",
        ["mine:2: fields.level: must be a list", "mine:3: fields.levle: is not a known"],
    ),
    (
        "[fields]\nlevel = [1]\nmessage = ['']\n",
        ["mine:2: fields.level: must be text", "mine:3: fields.message: must not"],
    ),
    ("[levels]\na = 'loud'\nb = 1\n", ["mine:2: levels.a: unknown level", "mine:3: levels.b: must be text"]),
    ("[pieces]\na = 1\n", ["mine:2: pieces.a: must be text"]),
    ("[mentions.colour]\nwords = ['x']\n", ["mine:1: mentions.colour: is not one of trace_id, user_id"]),
    ("[mentions.user_id]\npattern = 'x'\n", ["mine:2: mentions.user_id.pattern: has no group 'id'"]),
    ("[formats.mine]\npattern = '" + "(" * 2000 + ")" * 2000 + "'\n", ["mine:2: formats.mine.pattern: is"]),
    (
        "[formats.mine]\npattern = 'a{99999999999}'\n",
        ["mine:2: formats.mine.pattern: is not a valid regular expression"],
    ),
    ("[formats.mine]\npattern = '" + "x" * 5000 + "'\n", ["mine:2: formats.mine.pattern: is 5,000 characters long"]),
    ("[formats.mine", ["mine:1: is not valid TOML"]),
]


@pytest.mark.parametrize(("text", "expected"), FAULTS, ids=lambda value: str(value)[:40])
def test_faults(text: str, expected: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        with_file(text)
    notified = [str(fault) for fault in caught.value.faults]
    assert len(notified) == len(expected), notified
    for fault, words in zip(notified, expected, strict=True):
        assert fault.startswith(words)
        assert fault.isascii() and len(fault) < 400


def test_files_of_an_account(tmp_path: Path) -> None:
    account = layout({}, tmp_path, os.getuid(), TOP)
    assert load_formats(account).levels["warn"] == ("WARNING", True)
    account.config.mkdir(parents=True)
    (account.config / "formats.toml").write_text("[levels]\nwarn = 'error'\n")
    assert load_formats(account).levels["warn"][0] == "ERROR"
    (account.config / "formats.toml").write_text("[levels]\nwarn = 1\n")
    with pytest.raises(ConfigurationError) as caught:
        load_formats(account)
    assert [fault.line for fault in caught.value.faults] == [2]
    with pytest.raises(ConfigurationError):
        load_formats(layout({}, tmp_path, os.getuid(), tmp_path / "nothing"))


def test_the_example_of_the_manual_page() -> None:
    page = (TOP / "packaging/man/formats.toml.5.scd").read_text()
    formats = with_file(page.partition("```\n")[2].partition("```")[0])
    expected = Parsed("ERROR", "could not send", {"ticket": "T-17"})
    assert said("E|2026-11-23 06:10:34|T-17|could not send", "tickets", formats) == expected
    assert said('{"message": "m", "flow_id": "f"}', "tickets", formats).trace_id == "f"


def test_what_the_formats_say_of_the_suite_joins_its_tracebacks() -> None:
    """As the ingest does it: an error is held open unless its form is complete, and ids of its first line count."""
    lines = [
        "ERROR:app:boom trace_id=t-1",
        "Traceback (most recent call last):",
        '  File "run.py", line 1, in <module>',
        "ValueError: no",
        '127.0.0.1 - - [23/Nov/2026 06:10:34] "GET /health HTTP/1.1" 500 -',
        "  not a part of it",
        '{"level": "ERROR", "message": "m"}',
        "  nor this",
    ]
    joiner: Joiner[Parsed] = Joiner()
    done = []
    for line in lines:
        if not joiner.add(("core", 1, ""), line, WHEN):
            parsed = said(line)
            done += joiner.push(("core", 1, ""), line, parsed.level or "INFO", parsed, WHEN, parsed.complete)
    assert len(joiner) == 0
    first = done[0]
    assert (first.payload.message + first.more, first.lines) == ("\n".join(["boom trace_id=t-1", *lines[1:4]]), 4)
    assert (first.payload.level, first.payload.trace_id, first.traceback) == ("ERROR", "t-1", True)
    assert [joined.lines for joined in done[1:]] == [1, 1, 1, 1]
    assert [joined.payload.level for joined in done[1:]] == ["ERROR", None, "ERROR", None]
