"""A pattern of a user's that practically never ends is interrupted and not used any more."""

import asyncio
import logging
import signal
import time
from collections.abc import Iterator

import pytest

from helmd.model.config.toml_tables import ConfigSource
from helmd.model.logs.parsing.format_schema import read_formats
from helmd.model.logs.parsing.journal_entries import Assembler
from helmd.model.logs.parsing.journal_fields import JournalEntry
from helmd.model.logs.parsing.parsed import Formats, RunawayError, mentioned_id
from helmd.operations.logs import pattern_watchdog
from helmd.operations.logs.pattern_watchdog import MessageReader, PatternWatchdog
from tests.unit.test_assembly import FORMATS, entry

RUNAWAY = r"@(?P<message>(?:a+)+)\$"
HOSTILE = "@" + "a" * 60 + "!"
SECONDS = 3.0
"""Far more than the limit of processor time, since other processes run as well."""
SOURCE = f"""
[formats.mine]
order = 1
first = "@"
pattern = '{RUNAWAY}'

[formats.good]
order = 2
first = "@"
pattern = '@(?P<level>[a-z]+) (?P<message>.*)'
"""
INSIDE = f"""
[formats.mine]
order = 1
inside = "@"
pattern = '{RUNAWAY}'
"""


def formats(source: str) -> Formats:
    return read_formats([ConfigSource("formats.toml", source)])


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    yield
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0), "the timer runs on"
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)


def test_its_line_is_stored_and_those_around_it() -> None:
    assembler, watchdog = Assembler(formats(SOURCE)), PatternWatchdog()
    lines = ["@error before", HOSTILE, "@error after", HOSTILE]
    begun = time.process_time()
    with watchdog:
        assembler.take([entry(text.encode(), number, _STREAM_ID=b"%d" % number) for number, text in enumerate(lines)])
    assembler.finish_all()
    assert time.process_time() - begun < SECONDS
    assert assembler.runaways == ["formats.mine"]
    assert sorted(row.message for row in assembler.rows) == sorted(["before", HOSTILE, "after", HOSTILE])
    assert {row.message: row.level for row in assembler.rows}["after"] == "ERROR", "other formats are used on"


def test_slow_matches_add_up() -> None:
    """Each takes a tenth of a second or so; a flood of them would stop ingest as well."""
    slow = "@" + "a" * 20 + "!"
    assembler, watchdog = Assembler(formats(SOURCE)), PatternWatchdog()
    begun = time.process_time()
    for number in range(2000):
        with watchdog:
            assembler.take([entry(slow.encode(), number)])
        if assembler.runaways:
            break
    assert assembler.runaways == ["formats.mine"]
    assert time.process_time() - begun < 4 * SECONDS


def test_the_patterns_that_find_ids_are_bounded_too() -> None:
    found = formats("[mentions.trace_id]\nwords = ['req']\npattern = 'req (?P<id>(?:a+)+)\\$'\n")
    assembler = Assembler(found)
    with PatternWatchdog():
        assembler.take([entry(b"req " + b"a" * 60 + b"!")])
    assert assembler.runaways == ["mentions.trace_id"]
    assert [row.message for row in assembler.rows] == ["req " + "a" * 60 + "!"]
    assert assembler.formats.trace is None


def test_the_formats_of_the_package_are_not_interrupted() -> None:
    """Long, busy parsing is not a slow match."""
    assembler, watchdog = Assembler(FORMATS), PatternWatchdog()
    text = b'127.0.0.1 - - [14/Nov/2023 22:13:20] "GET / HTTP/1.1" 200 - ' + b"x" * 4000
    entries = [entry(text, number) for number in range(250)]
    begun = time.process_time()
    while time.process_time() - begun < 3 * pattern_watchdog.LIMIT:
        with watchdog:
            assembler.take(entries)
        assembler.rows.clear()
    assert assembler.runaways == [] and assembler.faults == []


def test_outside_of_it_nothing_is_interrupted() -> None:
    with PatternWatchdog():
        pass
    found = formats("[mentions.trace_id]\nwords = ['req']\npattern = 'req (?P<id>(?:a+)+)\\$'\n")
    for length in range(18, 60):
        begun = time.process_time()
        assert mentioned_id(found.trace, "req " + "a" * length + "!") is None
        if time.process_time() - begun > 1.5 * pattern_watchdog.LIMIT:
            break


def test_an_entry_after_an_unexpected_error_is_read() -> None:
    """Whatever an entry does to the parser."""

    class Odd(dict[str, bytes]):
        def get(self, *_: object) -> bytes:
            raise RecursionError("too deep")

    odd = JournalEntry(Odd(MESSAGE=b"odd", _SYSTEMD_USER_UNIT=b"hivematrix-core.service"), "s=1", "b" * 32, 1, 1)
    assembler = Assembler(FORMATS)
    assembler.take([entry(b"before"), odd, entry(b"after", 1)])
    assembler.finish_all()
    messages = [row.message for row in assembler.rows]
    assert [messages[0], messages[-1]] == ["before", "after"] and len(messages) == 3
    assert "RecursionError: too deep" in messages[1]
    assert [where for where, _ in assembler.faults] == ["s=1"]


@pytest.mark.parametrize("thread", [False, True], ids=["small body", "large body"])
async def test_posted_messages_are_bounded_wherever_they_are_read(
    thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    given = formats(INSIDE)
    reader = MessageReader(lambda: given)

    def read(message: str) -> str:
        return reader.read(message, "core", 0).message

    async def made(message: str) -> str:
        return await asyncio.to_thread(read, message) if thread else read(message)

    begun = time.process_time()
    with caplog.at_level(logging.WARNING):
        assert await made("@aaa$") == "aaa", "the pattern is used"
        assert await made(HOSTILE) == HOSTILE
        assert await made("@aaa$") == "@aaa$", "it is not used any more"
        assert await made("no such word") == "no such word"
    assert time.process_time() - begun < SECONDS
    assert reader.disabled == ["formats.mine"]
    assert caplog.messages == [
        "formats.mine in formats.toml takes too long; it is not used until the configuration is reloaded"
    ]
    given = formats(INSIDE)
    assert await made("@aaa$") == "aaa" and reader.disabled == [], "the configuration was reloaded"


def test_an_interrupt_names_its_pattern() -> None:
    found = formats("[mentions.trace_id]\nwords = ['req']\npattern = 'req (?P<id>(?:a+)+)\\$'\n")
    assert found.trace is not None
    with pytest.raises(RunawayError, match="takes too long") as caught, PatternWatchdog():
        mentioned_id(found.trace, "req " + "a" * 60 + "!")
    assert caught.value.pattern is found.trace.pattern
