"""Text that a line must have in it before a pattern is tried."""

import re

import pytest

from helmd.model.logs.parsing.needles import needle_of
from helmd.model.logs.parsing.parsed import Formats
from tests.unit.test_dialects import DIALECTS, FORMATS, MORE


@pytest.mark.parametrize(
    ("pattern", "needle"),
    [
        ("", ""),
        ("level=(?P<level>[a-z]+) msg=", "level="),
        ("(?P<word>ab)cd(e|f)g", "abcd"),
        ("(?:ab)?cd", "cd"),
        ("(?:abc)*d", "d"),
        ("(?:abc)+d", "abc"),
        ("(?:abc){2,3}", "abc"),
        ("abc|d", ""),
        ("x(?=abcd)y", "x"),
        ("x(?!abcd)y", "x"),
        ("(?i:abc)d", "d"),
        ("(?i)abc", ""),
        ("(?x) a b # c", "ab"),
        (r"\[a\] b", "[a] b"),
        ("[a]b", "ab"),
    ],
)
def test_what_every_match_has_in_it(pattern: str, needle: str) -> None:
    assert needle_of(re.compile(pattern)) == needle


def forms_of(formats: Formats) -> dict[str, tuple[re.Pattern[str], str]]:
    every = (
        form for table in (formats.common, *formats.services.values()) for forms in table.values() for form in forms
    )
    return {form.name: (form.pattern, form.needle) for form in every if form.pattern is not None}


def test_no_line_of_any_dialect_is_lost_by_it() -> None:
    lines = [text for dialect in [*DIALECTS, *MORE] for text in dialect.lines]
    matched = 0
    for name, (pattern, needle) in forms_of(FORMATS).items():
        matching = [text for text in lines if pattern.match(text.partition("\n")[0])]
        matched += len(matching)
        assert [text for text in matching if needle not in text] == [], name
    assert matched > 50
