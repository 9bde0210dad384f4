"""Which searches can use a trigram index."""

import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.logs.filter import LogFilter
from helmd.model.logs.trigrams import indexable, regex_has_run


@pytest.mark.parametrize(
    ("text", "mode", "narrowed"),
    [
        ("disk", "substring", True),
        ("di", "substring", False),
        ("a.b.c", "substring", False),
        ("!!!", "substring", False),
        ("grö", "substring", True),
        ("", "substring", False),
        ("a bc def", "words", True),
        ("a bc de", "words", False),
        ("abc.*", "regex", True),
        ("a.b.c", "regex", False),
    ],
)
def test_a_filter(text: str, mode: str, narrowed: bool) -> None:
    assert indexable(LogFilter(text=text, mode=mode)) is narrowed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pattern", ["disk", "x(abc)y", "(?:abc)+", "(abc|defg)", "a*bcd", "^abc$", "(?i)abc", "(a|b)xyz"]
)
def test_patterns_with_a_run(pattern: str) -> None:
    assert regex_has_run(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "", "ab", "a.b.c", "(abc)?", "(abc)*", "abc|d", "(abc|.)", "[abc][abc][abc]", "ab*c", "a b c", "(", "a{3,",
        "xx?", "\\d\\d\\d", "(?:abc){0,3}", "((((", "(?!abc)", "(?<!abc)x",
    ],
)  # fmt: skip
def test_patterns_without_one(pattern: str) -> None:
    assert not regex_has_run(pattern)


@pytest.mark.filterwarnings("error")
@given(st.text(alphabet="ab.*?()|[]{}3,^$\\+ ", max_size=12))
def test_any_pattern_is_accepted(pattern: str) -> None:
    found = regex_has_run(pattern)
    if found:
        assert re.search("[ab3]{3}", pattern)
        # What has no three letters or digits in a row can't match.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            assert not re.search(pattern, "a b a, b  ")
