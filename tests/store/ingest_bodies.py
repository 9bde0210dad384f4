"""Odd bodies with the results: the columns that are stored, or the words of the fault."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from helmd.model.logs.entry import MESSAGE_LIMIT
from helmd.model.logs.ids import ID_LIMIT

NOW = "the time of receipt"
RECENT = datetime.now(UTC).replace(microsecond=123456) - timedelta(hours=5)
NAIVE = RECENT.replace(tzinfo=None).isoformat()
OLD = (RECENT - timedelta(days=400)).isoformat()
AHEAD = (datetime.now(UTC) + timedelta(days=1)).isoformat()
SOON = RECENT + timedelta(hours=5, minutes=9)
ACCESS = '127.0.0.1 - - [23/Nov/2026 06:12:46] "\x1b[31m\x1b[1mPOST /api HTTP/1.1\x1b[0m" 401 -'
LONG_ID = "trace-" + "".join(map(str, range(400)))
HUGE_ID = "".join(map(str, range(2000)))


@dataclass(frozen=True)
class Stored:
    """A body that has a sensible reading; ``rows`` are the columns of interest of what is stored."""

    name: str
    body: Any
    rows: tuple[dict[str, Any], ...] = ()
    raw: bytes | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def sent(self) -> bytes:
        return json.dumps(self.body).encode() if self.raw is None else self.raw


@dataclass(frozen=True)
class Refused:
    name: str
    sent: bytes
    words: str
    status: int = 400
    token: str = "codex"
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def one(entry: Any, **columns: Any) -> tuple[Any, tuple[dict[str, Any], ...]]:
    return {"service_name": "codex", "logs": [entry]}, (columns,)


def entry(name: str, given: Any, **columns: Any) -> Stored:
    return Stored(name, *one(given, **columns))


def raw(name: str, text: bytes, **columns: Any) -> Stored:
    return Stored(name, None, (columns,), b'{"service_name": "codex", "logs": [' + text + b"]}")


def bad(name: str, body: Any, words: str, **more: Any) -> Refused:
    return Refused(name, body if isinstance(body, bytes) else json.dumps(body).encode(), words, **more)


def noted(**changed: Any) -> dict[str, Any]:
    return {"_changed": changed}


FULL = {
    "level": "ERROR",
    "message": "db down",
    "context": {"k": "v", "n": 1, "nest": {"a": [1, 2]}},
    "trace_id": "117b1fb5-897d-4fcd-82d8-d61f3fc9629e",
    "user_id": "user@example.com",
    "hostname": "h1",
    "process_id": 42,
    "timestamp": NAIVE,
}

STORED = (
    entry("the least", {"level": "INFO", "message": "hi"}, level="INFO", message="hi", context=None, timestamp=NOW),
    entry("everything", FULL, **{**FULL, "timestamp": RECENT, "source": "http"}),
    Stored("no entries", {"service_name": "codex", "logs": []}),
    Stored(
        "one object instead of a list",
        {"service_name": "codex", "level": "ERROR", "message": "single entry style"},
        ({"level": "ERROR", "message": "single entry style", "context": None},),
    ),
    Stored(
        "several",
        {"service_name": "codex", "logs": [{"message": f"m{n}"} for n in range(3)]},
        tuple({"message": f"m{n}"} for n in range(3)),
    ),
    entry("level in lower case", {"level": "error", "message": "x"}, level="ERROR", context=None),
    entry("level with space", {"level": " Info ", "message": "x"}, level="INFO", context=None),
    entry("WARN", {"level": "WARN", "message": "x"}, level="WARNING", context=noted(level="WARN")),
    entry("fatal", {"level": "fatal", "message": "x"}, level="CRITICAL", context=noted(level="fatal")),
    entry("unknown level", {"level": "LOUD", "message": "x"}, level="INFO", context=noted(level="LOUD")),
    entry("level null", {"level": None, "message": "x"}, level="INFO", context=noted(level=None)),
    entry("level a number", {"level": 30, "message": "x"}, level="INFO", context=noted(level=30)),
    entry("level a list", {"level": ["E"], "message": "x"}, level="INFO", context=noted(level=["E"])),
    entry("level not given", {"message": "x"}, level="INFO", context=None),
    entry("level of 100,000 letters", {"level": "E" * 100_000, "message": "x"}, level="INFO"),
    entry("message null", {"message": None}, message="null", context=noted(message=None)),
    entry("nothing in it", {}, message="null", level="INFO", context=noted(message=None)),
    entry("message a number", {"message": 4.5}, message="4.5", context=None),
    entry("message an object", {"message": {"ä": [1, None]}}, message='{"ä": [1, null]}', context=None),
    entry("message a list", {"message": ["a", True]}, message='["a", true]', context=None),
    entry("message empty", {"message": ""}, message="", context=None),
    entry("message of lines and tabs", {"message": "a\n\tb\\N\r"}, message="a\n\tb\\N\r", context=None),
    entry("NUL", {"message": "a\0b"}, message="a\ufffdb", context=noted(message="a\\u0000b")),
    entry("lone surrogate", {"message": "a\ud800b"}, message="a\ufffdb", context=noted(message="a\\ud800b")),
    entry("a pair of surrogates", {"message": "\N{PILE OF POO}"}, message="\N{PILE OF POO}", context=None),
    raw("no UTF-8", b'{"message": "caf\xe9"}', message="caf\ufffd", context=noted(message="caf\\udce9")),
    raw("raw NUL", b'{"message": "a\0b"}', message="a\ufffdb", context=noted(message="a\\u0000b")),
    raw("raw line break", b'{"message": "a\nb"}', message="a\nb", context=None),
    entry(
        "NUL in context",
        {"message": "x", "context": {"k\0": ["\0", {"\ud800": 1}]}},
        context={"k\ufffd": ["\ufffd", {"\ufffd": 1}]},
    ),
    entry("NUL in ids", {"message": "x", "trace_id": "a\0"}, trace_id="a\ufffd", context=noted(trace_id="a\\u0000")),
    entry(
        "1 MiB and more",
        {"message": "é" * (MESSAGE_LIMIT // 2 + 1)},
        message="é" * (MESSAGE_LIMIT // 2),
        context=noted(message={"bytes": MESSAGE_LIMIT + 2, "cut_at_bytes": MESSAGE_LIMIT}),
    ),
    entry("just 1 MiB", {"message": "x" * MESSAGE_LIMIT}, message="x" * MESSAGE_LIMIT, context=None),
    entry("a cut through a character", {"message": "x" + "é" * (MESSAGE_LIMIT // 2)}, message="x" + "é" * 524287),
    entry("ids null", {"message": "x", "trace_id": None, "user_id": None}, trace_id=None, user_id=None, context=None),
    entry("ids empty", {"message": "x", "trace_id": "", "user_id": ""}, trace_id=None, user_id=None, context=None),
    entry("id a number", {"message": "x", "user_id": 7}, user_id="7", context=noted(user_id=7)),
    entry("long id", {"message": "x", "trace_id": LONG_ID, "user_id": LONG_ID}, trace_id=LONG_ID, user_id=LONG_ID),
    entry(
        "id that no index takes",
        {"message": "x", "user_id": HUGE_ID},
        user_id=HUGE_ID[:ID_LIMIT],
        context=noted(user_id=HUGE_ID),
    ),
    entry("time with Z", {"message": "x", "timestamp": NAIVE + "Z"}, timestamp=RECENT, context=None),
    entry(
        "time with an offset",
        {"message": "x", "timestamp": (RECENT + timedelta(hours=2)).replace(tzinfo=None).isoformat() + "+02:00"},
        timestamp=RECENT,
        context=None,
    ),
    entry("time a little ahead", {"message": "x", "timestamp": SOON.isoformat()}, timestamp=SOON, context=None),
    entry("time far ahead", {"message": "x", "timestamp": AHEAD}, timestamp=NOW, context=noted(timestamp=AHEAD)),
    entry("time before retention", {"message": "x", "timestamp": OLD}, timestamp=NOW, context=noted(timestamp=OLD)),
    entry("no time", {"message": "x", "timestamp": "soon"}, timestamp=NOW, context=noted(timestamp="soon")),
    entry("time a number", {"message": "x", "timestamp": 1.5}, timestamp=NOW, context=noted(timestamp=1.5)),
    entry("time null", {"message": "x", "timestamp": None}, timestamp=NOW, context=None),
    entry(
        "time that no zone reaches",
        {"message": "x", "timestamp": "0001-01-01T00:00:00+23:00"},
        timestamp=NOW,
        context=noted(timestamp="0001-01-01T00:00:00+23:00"),
    ),
    entry("context null", {"message": "x", "context": None}, context=None),
    entry("context empty", {"message": "x", "context": {}}, context={}),
    entry("context a list", {"message": "x", "context": [1, "a"]}, context=noted(context=[1, "a"])),
    entry("context text", {"message": "x", "context": "why"}, context=noted(context="why")),
    entry(
        "context with our own key",
        {"message": "x", "level": "LOUD", "context": {"_changed": 1, "a": 2}},
        context={"a": 2, "_changed": {"level": "LOUD", "_changed": 1}},
    ),
    entry(
        "context of more than 1 MiB",
        {"message": "x", "context": {"a": [[1]] * 400_000}},
        message="x",
        context=noted(context=json.dumps({"a": [[1]] * 400_000})[:1048576]),
    ),
    entry(
        "200,000 fields that there are not",
        {"message": "x", **dict.fromkeys(map(str, range(200_000)), 1)},
        message="x",
    ),
    entry("context 90 deep", {"message": "x", "context": json.loads('{"a":' * 90 + "1" + "}" * 90)}, message="x"),
    raw(
        "NaN",
        b'{"message": "x", "context": {"a": NaN, "b": -Infinity, "c": 1e999}}',
        context={"a": "NaN", "b": "-Infinity", "c": "1e999"},
    ),
    raw(
        "a number of 5,000 digits",
        b'{"message": "x", "context": {"a": ' + b"9" * 5000 + b"}}",
        context={"a": "9" * 5000},
    ),
    raw("a key twice", b'{"message": "x", "message": "y"}', message="y"),
    entry(
        "fields that there are not",
        {"message": "x", "logger": "app", "context": {"a": 1}},
        context={"a": 1, "logger": "app"},
    ),
    entry("pid as text", {"message": "x", "process_id": "77"}, process_id=77, context=None),
    entry("pid of none", {"message": "x", "process_id": -1}, process_id=None, context=noted(process_id=-1)),
    entry("pid too large", {"message": "x", "process_id": 1 << 40}, process_id=None, context=noted(process_id=1 << 40)),
    entry("host name a number", {"message": "x", "hostname": 5}, hostname="5", context=noted(hostname=5)),
    entry(
        "colours",
        {"message": "\x1b[33mPress CTRL+C\x1b[0m"},
        message="Press CTRL+C",
        context=noted(message="\x1b[33mPress CTRL+C\x1b[0m"),
    ),
    entry("an access line", {"level": "INFO", "message": ACCESS}, level="WARNING", message='"POST /api HTTP/1.1" 401'),
    entry(
        "markup and SQL",
        {"message": "<script>'; DROP TABLE log_entries; --"},
        message="<script>'; DROP TABLE log_entries; --",
        context=None,
    ),
    Stored(
        "UTF-8 with a mark",
        None,
        ({"message": "x"},),
        b'\xef\xbb\xbf{"service_name": "codex", "logs": [{"message": "x"}]}',
    ),
    Stored(
        "UTF-16", None, ({"message": "ü"},), '{"service_name": "codex", "logs": [{"message": "ü"}]}'.encode("utf-16")
    ),
    Stored(
        "10,000 entries",
        {"service_name": "codex", "logs": [{"message": "bulk"}] * 10_000},
        ({"message": "bulk"},) * 10_000,
    ),
    Stored(
        "space everywhere",
        None,
        ({"message": "x"},),
        b' {\n"logs" : [ {"message" : "x"}\r\n] ,\t"service_name" : "codex" } \n',
    ),
)

REFUSED = (
    bad("empty", b"", "not a JSON object"),
    bad("no JSON", b"{'service_name': 'codex'}", "not a JSON object"),
    bad("cut off", b'{"service_name": "codex", "logs": [{"message": "x"}', "not a JSON object"),
    bad("something behind it", b'{"service_name": "codex", "logs": []} x', "not a JSON object"),
    bad("bytes", bytes(range(256)), "not a JSON object"),
    bad("a list", [{"message": "x"}], "not a JSON object"),
    bad("text", "codex", "not a JSON object"),
    bad("null", None, "not a JSON object"),
    bad("no logs", {"service_name": "codex"}, "logs: is missing"),
    bad("logs null", {"service_name": "codex", "logs": None}, "logs: must be a list, not null"),
    bad("logs an object", {"service_name": "codex", "logs": {"message": "x"}}, "logs: must be a list, not an object"),
    bad("logs text", {"service_name": "codex", "logs": "x"}, "logs: must be a list, not text"),
    bad("an entry is text", {"service_name": "codex", "logs": [{"message": "a"}, "b"]}, "logs[1]: must be an object"),
    bad("an entry is null", {"service_name": "codex", "logs": [None]}, "logs[0]: must be an object, not null"),
    bad(
        "an entry is a list", {"service_name": "codex", "logs": [{}, {}, []]}, "logs[2]: must be an object, not a list"
    ),
    bad("no name", {"logs": [{"message": "x"}]}, "service_name"),
    bad("name null", {"service_name": None, "logs": []}, "service_name"),
    bad("name in capitals", {"service_name": "Codex", "logs": [{"message": "x"}]}, "service_name"),
    bad("name empty", {"service_name": "", "logs": []}, "service_name"),
    bad("name with a line break", {"service_name": "codex\n", "logs": []}, "service_name"),
    bad("name of 51", {"service_name": "c" * 51, "logs": []}, "service_name"),
    bad("name a path", {"service_name": "../codex", "logs": []}, "service_name"),
    bad("10,001 entries", {"service_name": "codex", "logs": [{}] * 10_001}, "at most 10,000"),
    bad("nested without end", b'{"service_name": "codex", "logs": [' + b"[" * 100_000, "logs[0]: is nested too deeply"),
    bad("nested elsewhere", b'{"service_name": "codex", "x": ' + b"[" * 100_000, "nested too deeply"),
    bad(
        "more than 16 MiB",
        b'{"service_name": "codex", "logs": [{"message": "' + b"x" * (16 << 20) + b'"}]}',
        "16 MiB",
        status=413,
    ),
    bad("gzip", b"\x1f\x8b", "content encoding", status=415, headers={"Content_Encoding": "gzip"}),
    bad("another's name", {"service_name": "core", "logs": [{"message": "x"}]}, "may not post as", status=403),
    bad(
        "key too long",
        {"service_name": "codex", "logs": [{}]},
        "Idempotency-Key",
        headers={"Idempotency_Key": "k" * 256},
    ),
    bad("key empty", {"service_name": "codex", "logs": [{}]}, "Idempotency-Key", headers={"Idempotency_Key": ""}),
    bad(
        "key not printable",
        {"service_name": "codex", "logs": [{}]},
        "Idempotency-Key",
        headers={"Idempotency_Key": "a\tb"},
    ),
)
