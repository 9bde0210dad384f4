"""What programs print, by logger, language and server, and what it is parsed to.

`tests/fixtures/dialects.jsonl` and `more_dialects.jsonl` have examples, `recorded_logs.jsonl` what programs printed.
And the other way round: text that only has the name of a level in it gets none.
"""

import argparse
import base64
import json
import logging
import pydoc
import pydoc_data.topics
import random
import sysconfig
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helmd.model.layout import layout
from helmd.model.logs.entry import LogRow
from helmd.model.logs.parsing import line_head
from helmd.model.logs.parsing.journal_entries import Assembler
from helmd.model.logs.parsing.journal_fields import JournalEntry, Value
from helmd.operations.configuration.load import load_formats

TOP = Path(__file__).resolve().parents[2]
FORMATS = load_formats(layout({}, TOP, 0, TOP))
WHEN = 1_764_284_506_000_000
LINES_OF_TEXT = 10_000
MOST_MISTAKEN = 5


@dataclass(frozen=True)
class Dialect:
    """Consecutive lines of one stream of one unit, and the entries that they are."""

    dialect: str
    lines: list[str]
    want: list[dict[str, Any]]

    def __str__(self) -> str:
        return self.dialect


def dialects(fixture: str) -> list[Dialect]:
    lines = (TOP / "tests/fixtures" / fixture).read_text(encoding="utf-8").splitlines()
    return [Dialect(**json.loads(line)) for line in lines]


DIALECTS = dialects("dialects.jsonl")
MORE = dialects("more_dialects.jsonl")
"""Further programs and notations of times, levels and ids, levels in other languages, and text without a level."""
RECORDED = dialects("recorded_logs.jsonl")
"""What programs of Debian 12, PyPI and npm printed when they were run; stacks are shortened."""


def rows_of(lines: Iterable[str], apart: int = 50) -> list[LogRow]:
    """Return the entries of LINES, which were printed APART microseconds from each other."""
    assembler = Assembler(FORMATS)
    for number, line in enumerate(lines):
        fields: dict[str, Value] = {
            "_TRANSPORT": b"stdout",
            "_SYSTEMD_USER_UNIT": b"hivematrix-core.service",
            "_STREAM_ID": b"5" * 32,
            "_PID": b"42",
            "PRIORITY": b"6",
            "MESSAGE": line.encode(),
        }
        assembler.take([JournalEntry(fields, "", "b" * 32, number, WHEN + number * apart)])
    assembler.finish_all()
    assert assembler.faults == []
    return assembler.rows


@pytest.mark.parametrize("dialect", [*DIALECTS, *MORE, *RECORDED], ids=str)
def test_dialects(dialect: Dialect) -> None:
    rows = rows_of(dialect.lines)
    assert len(rows) == len(dialect.want), [row.message for row in rows]
    for row, wanted in zip(rows, dialect.want, strict=True):
        assert row.level == wanted["level"], row
        assert wanted.get("message", row.message) == row.message
        assert wanted.get("contains", "") in row.message
        if "trace_id" in wanted:
            assert row.trace_id == wanted["trace_id"]


@pytest.mark.parametrize("dialect", [d for d in [*DIALECTS, *MORE] if len(d.lines) > 1], ids=str)
def test_dialects_without_the_empty_lines(dialect: Dialect) -> None:
    """As journald gives them, which keeps no empty lines of a stream."""
    rows = rows_of(line for line in dialect.lines if line)
    assert [row.level for row in rows] == [wanted["level"] for wanted in dialect.want]


def _prose() -> list[str]:
    """English with the names of levels in it, from Python's manual and this repository."""
    lines = [line for topic in pydoc_data.topics.topics.values() for line in topic.split("\n")]
    # Tracebacks that the manual quotes are tracebacks.
    quoted = ("Traceback", 'File "', "Error:", "|", "+-")
    lines = [line for line in lines if not line.strip().startswith(quoted)]
    for file in ("LICENSE", "README.md", "HACKING.md", "CHANGELOG.md", "SECURITY.md", "debian/copyright"):
        lines += (TOP / file).read_text().split("\n")
    return lines + [
        line for page in sorted((TOP / "packaging/man").glob("*.scd")) for line in page.read_text().split("\n")
    ]


def _sources(pattern: str) -> list[str]:
    return [line for file in sorted(TOP.glob(pattern)) for line in file.read_text().split("\n")]


def _python() -> list[str]:
    library = Path(sysconfig.get_path("stdlib"))
    modules = ("logging/__init__.py", "logging/handlers.py", "argparse.py", "unittest/case.py", "http/client.py")
    found = [library / name for name in modules]
    return [line for file in found for line in file.read_text(encoding="utf-8").split("\n")] + _sources("helmd/**/*.py")


def _html() -> list[str]:
    """Return the manual pages of modules about logging and errors, as pydoc(1) writes them."""
    page = pydoc.HTMLDoc()
    return [line for module in (logging, argparse, warnings) for line in page.document(module).split("\n")]


SENTENCES = [
    "{} handling is described in chapter {}",
    "{} desk opens at nine, counter {}",
    "The label said {}: contents hot, {} degrees",
    "no {} was reported in {} days",
    "{}s are listed in appendix {}",
    "See {} in section {} of the manual",
    "{} codes below {} are reserved",
    "It was a {} mistake, made {} times",
    "{} messages go to stream {}",
    "on {} the pump stops for {} s",
    "A common {}: to wait {} days",
    "the last {} of year {}: a short one",
    "{} rates by line: {} and more",
    "it is an {}: see page {}",
]


def _sentences(chance: random.Random) -> list[str]:
    words = ["error", "Error", "ERROR", "warning", "Warning", "WARNING", "fatal", "Fatal", "critical", "debug", "DEBUG",
             "info", "INFO", "notice", "alert", "panic", "severe", "trace", "failure"]  # fmt: skip
    return [sentence.format(word, chance.randrange(100)) for sentence in SENTENCES for word in words]


def _text(chance: random.Random) -> list[str]:
    """LINES_OF_TEXT lines of prose, SQL, HTML, source code and base64."""
    encoded = [base64.b64encode(chance.randbytes(57)).decode() for _ in range(2000)]
    kinds = [_prose(), _python(), _sources("helmd/**/*.sql"), _html(), encoded]
    lines = _sentences(chance)
    for kind in kinds:
        kept = [line for line in kind if line.strip()]
        lines += chance.sample(kept, min(len(kept), LINES_OF_TEXT // 2))
    chance.shuffle(lines)
    assert len(lines) >= LINES_OF_TEXT
    return lines[:LINES_OF_TEXT]


def test_text_has_no_level() -> None:
    """Of 10,000 lines of text that are no log lines, at most five get another level than their stream's."""
    lines = _text(random.Random(20261128))
    mistaken = [row.message[:80] for row in rows_of(lines, apart=1_000_000) if row.level != "INFO"]
    assert len(mistaken) <= MOST_MISTAKEN, mistaken


def test_the_lines_of_text_are_what_they_are_said_to_be() -> None:
    """There are names of levels in them in plenty, or the test above would show nothing."""
    lines = _text(random.Random(20261128))
    assert sum("error" in line.lower() or "warning" in line.lower() for line in lines) > 200
    assert any("SELECT" in line for line in lines) and any("<table" in line for line in lines)


COMMON_HEADS = [
    "2026-11-27 10:00:00,120 INFO shop.orders: next one",
    "2026-11-27 10:00:00,120 - shop.orders - WARNING - next one",
    "2026-11-27T10:00:00Z ERROR: no more orders",
    "2026/11/27 10:00:00 NOTICE shop - next one",
    "WARNING: nearly full today",
    "FATAL:   no disk left",
]


@pytest.mark.parametrize("line", [*COMMON_HEADS, *(dialect.lines[0] for dialect in [*DIALECTS, *MORE])])
def test_common_heads_are_read_as_all_others(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at once by one pattern is what reading part by part gives."""
    at_once = line_head.read_head(FORMATS, line, WHEN)
    monkeypatch.setattr(line_head, "_COMMON", {})
    assert line_head.read_head(FORMATS, line, WHEN) == at_once


@pytest.mark.parametrize("line", COMMON_HEADS)
def test_common_heads_are_read_at_once(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_head, "may_have_head", lambda text: False)
    assert line_head.read_head(FORMATS, line, WHEN) is not None


def test_a_plain_line_that_comes_later_belongs_to_no_traceback() -> None:
    lines = ["Traceback (most recent call last):", '  File "/opt/shop/run.py", line 3, in f', "KeyError: 'a'", "ready"]
    assert len(rows_of(lines, apart=50)) == 1
    assert [row.level for row in rows_of(lines, apart=60_000)] == ["ERROR", "INFO"]
