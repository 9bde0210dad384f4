"""Patterns of messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.logs.entry import LogRow
from helmd.model.logs.patterns import LENGTH, pattern_of, pattern_term, shown_pattern
from helmd.model.logs.query_language.evaluate import meets
from helmd.model.logs.query_language.parse import parsed_query
from tests.unit.test_query_language import NOON

SHOWN = [
    ("user 7 logged in from 192.0.2.1:5123", "user * logged in from *"),
    ("user 4711 logged in from 192.0.2.1:80", "user * logged in from *"),
    ('GET "/api/x" took 12.5ms', "GET * took *"),
    ("can't open 'a b' for it's gone", "can't open * for it's gone"),
    ("order 4bf92f3577b34da6 node12 worker-3 done", "order * node* worker-* done"),
    ("deadbeef1: face the music", "* face the music"),
    ("id=3f2504e0-4f89-11d3-9a0c-0305e82c3301 ok", "id=* ok"),
    ("/api/users/42/edit", "/api/users/*/edit"),
    ("2026-01-31T12:00:00.123Z start", "* start"),
    ("Traceback\n  line 7", "Traceback*"),
    ("a * b", "a * b"),
    ("", ""),
    ("x" * 400, "x" * LENGTH + "*"),
]


@pytest.mark.parametrize(("message", "shown"), SHOWN, ids=[message[:20] for message, _ in SHOWN])
def test_patterns(message: str, shown: str) -> None:
    assert shown_pattern(pattern_of(message)) == shown


@given(st.one_of(st.text(max_size=60), st.text(alphabet="ab1f\"'\\* \n-.\x01", max_size=330)))
def test_a_message_meets_the_term_of_its_pattern(message: str) -> None:
    if "\0" in message or (not message.isprintable() and not message.isascii()):
        return
    row = LogRow(NOON, "core", "INFO", message)
    assert meets(parsed_query(pattern_term(pattern_of(message))), row)
    assert not meets(parsed_query("-" + pattern_term(pattern_of(message))), row)
