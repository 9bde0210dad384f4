"""Random and changed journal entries: ingest never stops, and every ordinary line around them is stored once."""

import asyncio
import json
import random
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from helmd.model.ingest.own_entries import PostedRow
from helmd.model.logs.entry import HTTP, LogRow
from helmd.model.logs.parsing.journal_fields import SUPPRESSED
from tests.campaign import scaled
from tests.signing import action_fields, posted_fields
from tests.store.conftest import Database
from tests.store.journals import BOOT_A, START, UID, append
from tests.store.test_ingest_loop import Daemon
from tests.system.printed_lines import seeded_random
from tests.waiting import eventually

ENTRIES = scaled(100_000, 3_000)
PART = scaled(10_000, 500)
"""Entries that are written to the journal at once, while others are read."""
SECONDS = scaled(900, 60)

BEGIN = datetime.fromtimestamp(START // 1_000_000, UTC)

Fields = list[tuple[str, bytes]]

SERVICES = (b"hostile", b"core", b"x" * 300, b"../x", b"\xff\xfe", b"a\0b", b"", "größe".encode(), b"helm", b"job-1")
UNITS = (
    b"helmd.service",
    b"helmd-journal.service",
    b"hivematrix-hostile.service",
    b"hivematrix-job-7.service",
    b"hivematrix-\xff\x00.service",
    b"hivematrix-" + b"n" * 400 + b".service",
    b"init.scope",
    b"app.scope",
    b"",
)
IDENTIFIERS = (b"hivematrix-hostile", b"helmctl", b"helmd", b"systemd", b"\xff", b"hivematrix-" + b"y" * 5000, b"")
TRANSPORTS = (b"stdout", b"stdout", b"journal", b"syslog", b"driver", b"kernel", b"\0", b"")
TIMES = (
    "2023-11-14T22:13:20",
    "2023-11-14T22:13:20+00:00",
    "9999-12-31T23:59:59.999999-23:59",
    "0001-01-01T00:00:00+23:59",
    "2023-02-30T00:00:00Z",
    "1e400",
    "-1",
    "99999999999999999999",
    "now",
    "",
)
NUMBERS = ("0", "-1", "²", "4294967296", "9" * 30, "9" * 5000, "1e999", "NaN", "0x10", "", "\0", "7")
PRIORITIES = (b"6", b"5", b"3", b"7", b"", b"66", b"-1", b"\xff", b"9" * 1000)
LINE_BREAKS = (b"line-max", b"nul", b"eof", b"pid-change", b"\xff", b"")
TEXTS = (
    "Traceback (most recent call last):",
    '  File "/app/run.py", line 3, in f',
    "ValueError: no",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    '127.0.0.1 - - [14/Nov/2023 22:13:20] "GET / HTTP/1.1" 500 -',
    "level=error msg=oops pid=99999999999999999999 trace_id=" + "t" * 3000,
    "<3>a priority",
    "\u2028\u2029\x85\r\n",
)
POSTED_NAMES = (
    *("LEVEL", "TIMESTAMP", "CONTEXT", "TRACE_ID", "USER_ID", "HOSTNAME"),
    *("PROCESS_ID", "KEY", "HMAC", "WRITTEN"),
)


def exported(fields: Fields, number: int) -> bytes:
    """Return one entry of the journal's export format, all its fields in binary form
    (systemd.io/JOURNAL_EXPORT_FORMATS).
    """
    head = f"__REALTIME_TIMESTAMP={START + number}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID={BOOT_A}\n_UID={UID}\n"
    given = (name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n" for name, value in fields)
    return head.encode() + b"".join(given) + b"\n"


class Hostile:
    """Makes entries by CHANCE. What is in ``posted`` and ``actions`` Helm did write itself, each of it once."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.posted: list[str] = []
        self.actions: list[str] = []
        self._signed: list[Fields] = []
        self._kinds: tuple[Callable[[int], Fields], ...] = (
            self._any_fields,
            self._any_fields,
            self._printed,
            self._printed,
            self._forged,
            self._forged,
            self._written_by_helm,
            self._signed_oddly,
            self._changed,
            self._changed,
            self._copied,
            self._suppressed,
        )

    def entry(self, number: int) -> Fields:
        return self.chance.choice(self._kinds)(number)

    def raw(self) -> bytes:
        """Return bytes of any kind and length, rarely more than a field may have."""
        chance = self.chance
        size = chance.choice((0, 1, 3, 10, 100, 1000, 9000))
        if chance.random() < 0.0007:
            size = chance.choice((60_000, 1 << 20, 2 << 20))
        kind = chance.randrange(5)
        if kind == 0:
            return chance.randbytes(size)
        if kind == 1:
            return b"\0" * size
        if kind == 2:
            return bytes(chance.choices(b' {}[]":,\\u0d8 \n\t\xed\xa0\x80\xf4\xff=%<>e19-', k=size))
        if kind == 3:
            return chance.choice(TEXTS).encode() + chance.choice((b"", b"\0", b"\xed\xa0\x80", b"\n\xff"))
        return self.json(number=chance.randrange(12))

    def json(self, number: int) -> bytes:
        deep = self.chance.choice((10, 65, 72, 73, 500, 5000, 100_000))
        odd: tuple[str, ...] = (
            '{"message": ' * deep,
            "[" * deep + "]" * deep,
            '{"level": ' + '{"a": ' * deep + "1" + "}" * (deep + 1),
            '{"message": "\\u0000 \\ud800 \\udc00", "level": "error"}',
            '{"message": "m", "pid": ' + "9" * deep + "}",
            '{"message": "m", "timestamp": "9999-12-31T23:59:59-23:59", "x": 1e999, "y": NaN, "z": -Infinity}',
            '{"message": {"message": {"message": []}}, "level": ["error"], "trace_id": {}, "user_id": 1e308}',
            '{"' + "k" * deep + '": 1, "message": null, "level": null}',
            json.dumps({f"k{n}": n for n in range(min(deep, 3000))}),
            '{"a": 1} trailing',
            "{}",
            '{"\\ud800": "\\u0000", "level": "fatal", "message": 5}',
        )
        return odd[number].encode()

    def _common(self) -> Fields:
        chance = self.chance
        fields: Fields = [("_TRANSPORT", chance.choice(TRANSPORTS)), ("SYSLOG_IDENTIFIER", chance.choice(IDENTIFIERS))]
        if chance.random() < 0.8:
            fields.append(("_SYSTEMD_USER_UNIT", chance.choice(UNITS)))
        if chance.random() < 0.3:
            fields.append(("USER_UNIT", chance.choice(UNITS)))
        if chance.random() < 0.7:
            fields.append(("_PID", chance.choice(NUMBERS).encode()))
        if chance.random() < 0.3:
            fields.append(("_STREAM_ID", chance.randbytes(chance.randrange(20))))
        if chance.random() < 0.5:
            fields.append(("_HOSTNAME", self.raw()[:300]))
        return [*fields, ("PRIORITY", chance.choice(PRIORITIES))]

    def _any_fields(self, _: int) -> Fields:
        fields = [*self._common(), ("MESSAGE", self.raw())]
        fields += [(f"FIELD_{n}", self.raw()) for n in range(self.chance.choice((0, 1, 5, 50)))]
        if self.chance.random() < 0.2:
            fields += self.chance.choices(fields, k=3)
        return fields

    def _printed(self, _: int) -> Fields:
        fields: Fields = [
            ("_TRANSPORT", b"stdout"),
            ("_SYSTEMD_USER_UNIT", b"hivematrix-hostile.service"),
            ("SYSLOG_IDENTIFIER", b"hivematrix-hostile"),
            ("_PID", self.chance.choice(NUMBERS).encode()),
            ("_STREAM_ID", b"%d" % self.chance.randrange(4)),
            ("PRIORITY", self.chance.choice(PRIORITIES)),
            ("MESSAGE", self.raw()),
        ]
        if self.chance.random() < 0.2:
            fields.append(("_LINE_BREAK", self.chance.choice(LINE_BREAKS)))
        return fields

    def _forged(self, number: int) -> Fields:
        """As a process of the account may send it, or helmd of an earlier version."""
        chance = self.chance
        kind = "POSTED" if chance.random() < 0.7 else "ACTION"
        fields = [*self._common(), ("MESSAGE", self.raw()), (f"HIVEMATRIX_{kind}", b"1")]
        fields += [
            ("HIVEMATRIX_SERVICE", chance.choice(SERVICES)),
            ("HIVEMATRIX_REQUEST", str(UUID(int=number)).encode() if chance.random() < 0.8 else self.raw()),
            ("HIVEMATRIX_ENTRIES", chance.choice(NUMBERS).encode()),
            ("HIVEMATRIX_NUMBER", chance.choice(NUMBERS).encode()),
        ]
        for name in chance.sample(POSTED_NAMES, chance.randrange(len(POSTED_NAMES))):
            odd = chance.choice((*TIMES, *NUMBERS)).encode()
            fields.append((f"HIVEMATRIX_{name}", chance.choice((odd, self.raw(), self.json(chance.randrange(12))))))
        return fields

    def _written_by_helm(self, number: int) -> Fields:
        """Return what Helm writes itself; copies and changes are made of it later."""
        request = str(UUID(int=(1 << 100) + number))
        if self.chance.random() < 0.5:
            row = LogRow(BEGIN, "posted", "ERROR", f"p{number}", {"n": number}, source=HTTP)
            given = posted_fields(PostedRow(row, request), START + number)
            self.posted.append(f"p{number}")
        else:
            given = action_fields(request, START + number, MESSAGE=f"a{number}")
            self.actions.append(f"a{number}")
        fields: Fields = [*cast(dict[str, bytes], given).items(), ("_TRANSPORT", b"journal")]
        self._signed.append(fields)
        return fields

    def _signed_oddly(self, number: int) -> Fields:
        """Return what a faulty Helm might write: signed, but with odd values."""
        chance = self.chance
        row = LogRow(BEGIN, "odd", "INFO", "odd", source=HTTP)
        text = self.raw().decode("utf-8", "replace")
        odd = row._replace(
            timestamp=row.timestamp + timedelta(days=chance.randrange(-700_000, 2_900_000)),
            process_id=cast(Any, chance.choice(NUMBERS)),
            message=text,
            trace_id=chance.choice((None, text)),
            context=chance.choice((None, {"a": text}, {text: [text]})),
            service_name=chance.choice(("odd", "x" * 51, "../x", "")),
        )
        posted = PostedRow(odd, str(UUID(int=(1 << 101) + number)), None, chance.choice((1, 1 << 40)), 0)
        return [*cast(dict[str, bytes], posted_fields(posted, START + number)).items(), ("_TRANSPORT", b"journal")]

    def _changed(self, number: int) -> Fields:
        """Return a signed entry with another value, a field less, a field more, or a field of another entry."""
        if not self._signed:
            return self._forged(number)
        chance = self.chance
        fields = list(chance.choice(self._signed))
        place = chance.randrange(len(fields))
        name, value = fields[place]
        kind = chance.randrange(5)
        if kind == 0:
            fields[place] = name, self.raw()
        elif kind == 1:
            flipped = bytearray(value)
            flipped[chance.randrange(len(flipped))] ^= chance.randrange(1, 256)
            fields[place] = name, bytes(flipped)
        elif kind == 2:
            del fields[place]
        elif kind == 3:
            fields.append((name, self.raw()))
        else:
            others = dict(chance.choice(self._signed))
            fields[place] = name, others.get(name, b"x" + value)
        return fields

    def _copied(self, number: int) -> Fields:
        """Return a signed entry again, by the same process or another one."""
        if not self._signed:
            return self._forged(number)
        unit = self.chance.choice((b"helmd.service", b"app.scope", b"hivematrix-hostile.service"))
        return [*self.chance.choice(self._signed), ("_SYSTEMD_USER_UNIT", unit), ("_PID", b"13")]

    def _suppressed(self, _: int) -> Fields:
        dropped = self.chance.choice(NUMBERS).encode()
        return [("_TRANSPORT", b"driver"), ("MESSAGE_ID", SUPPRESSED), ("N_DROPPED", dropped), ("MESSAGE", self.raw())]


def ordinary(number: int) -> Fields:
    return [
        ("_TRANSPORT", b"stdout"),
        ("_SYSTEMD_USER_UNIT", b"hivematrix-plain.service"),
        ("SYSLOG_IDENTIFIER", b"hivematrix-plain"),
        ("_PID", b"42"),
        ("_STREAM_ID", b"5" * 32),
        ("PRIORITY", b"6"),
        ("MESSAGE", b"line %d" % number),
    ]


async def test_ingest_never_stops_and_stores_every_ordinary_line_once(database: Database, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    hostile = Hostile(seeded_random())
    lines: list[str] = []
    stored = "SELECT message FROM log_entries WHERE service_name = 'plain' AND source = 'journal' ORDER BY id"
    daemon = Daemon(journal, database.store, database.owner)
    async with daemon.running():
        for begin in range(0, ENTRIES, PART):
            entries = []
            for number in range(begin, begin + PART):
                if hostile.chance.random() < 0.5:
                    entries.append(exported(ordinary(number), number))
                    lines.append(f"line {number}")
                else:
                    entries.append(exported(hostile.entry(number), number))
            entries.append(exported(ordinary(begin + PART), begin + PART))
            lines.append(f"line {begin + PART}")
            await asyncio.to_thread(append, journal / "a.journal", entries)
        async with asyncio.timeout(SECONDS):
            while not daemon.prepared or len(await asyncio.to_thread(database.query, stored)) < len(lines):
                await asyncio.sleep(0.1)
            # What is joined, and what was held for it.
            await eventually(lambda: database.query("SELECT 1 FROM journal_cursor WHERE pending IS NULL") != [])
        await asyncio.sleep(0.5)
    waited = [sentence for sentence in daemon.said if sentence.startswith("waiting")]
    assert waited == [], "ingest stopped for a while"
    assert [message for (message,) in database.query(stored)] == lines
    posted = database.query("SELECT message FROM log_entries WHERE source = 'http' AND service_name = 'posted'")
    assert sorted(str(message) for (message,) in posted) == sorted(hostile.posted)
    actions = database.query("SELECT message FROM log_entries WHERE source = 'helm' AND context ? 'action'")
    assert sorted(str(message) for (message,) in actions) == sorted(hostile.actions)
    others = database.query(
        "SELECT count(*) FROM log_entries WHERE source = 'http' AND service_name NOT IN ('posted', 'odd')"
    )
    assert others == [(0,)], "forged entries were believed"
    refused = database.query("SELECT message FROM log_entries WHERE context->>'gap' = 'refused'")
    assert refused == [], "the parser made rows that the store refuses"
