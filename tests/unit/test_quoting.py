"""Values in units: what systemd makes of them is what they were. The system tests ask the real systemd as well."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helmd.systemd import quoting
from tests.unit import systemd_syntax as syntax

PRINTABLE = st.text(max_size=40).map(lambda text: "".join(c for c in text if c.isprintable() or c == "\t"))
PARTS = ["%", "%%", "%h", "$", "$$", "${HOME}", "$HOME", '"', "'", "\\", "\\n", "\\x41", " ", "\t", ";", "#", "=", "a"]
NASTY = st.lists(st.sampled_from(PARTS)).map("".join)
VALUES = PRINTABLE | NASTY
ENVIRONMENT = {"HOME": "/home/of variable", "A": "x"}


@given(VALUES)
@example("")
@example(";")
@example("$HOME")
@example("back\\")
def test_a_word_of_a_command_line_arrives_as_it_was(value: str) -> None:
    line = f"/bin/true {quoting.exec_word(value)} last"
    assert syntax.command(line, ENVIRONMENT) == ["/bin/true", value, "last"]


@given(st.lists(VALUES))
@example([";", " ; ", ";;", "; x"])
def test_a_command_line_arrives_as_it_was(words: list[str]) -> None:
    assert syntax.command(quoting.command_line(["/bin/true", *words]), ENVIRONMENT) == ["/bin/true", *words]


@given(st.text(st.sampled_from("abc/. \t50%é"), max_size=10))
def test_the_program_is_a_plain_path(name: str) -> None:
    """Values.words refuses what has a meaning of its own there; directories come from the account."""
    program = f"/srv/{name}/x"
    assert syntax.command(quoting.command_line([program, "y"]), {}) == [program, "y"]


@given(VALUES)
@example("ends in a backslash\\")
def test_a_variable_arrives_as_it_was(value: str) -> None:
    assert syntax.environment([quoting.assignment("NAME", value)]) == {"NAME": value}


@given(VALUES.map(str.strip))
def test_the_rest_of_a_line_arrives_as_it_was(value: str) -> None:
    """But for the blank that keeps a backslash at its end from continuing the line."""
    text = f"[Unit]\nDescription={quoting.line(value)}\nNext=1\n"
    (first, second) = syntax.assignments(text)
    assert syntax.specifiers(first[2]) == value and second == ("Unit", "Next", "1")


@given(st.text(st.sampled_from("abc/. \t50%é\"'\\"), min_size=1, max_size=10))
def test_a_path_in_a_list_arrives_as_it_was(value: str) -> None:
    listed = f"{quoting.escaped_path('/srv/' + value)} /etc"
    assert [syntax.specifiers(word) for word in syntax.words(listed)] == ["/srv/" + value, "/etc"]


@given(VALUES)
def test_every_quoted_value_is_one_line(value: str) -> None:
    for quoted in (
        quoting.exec_word(value),
        quoting.assignment("A", value),
        quoting.line(value),
        quoting.escaped_path(value),
    ):
        assert len(quoted.splitlines()) <= 1 and not quoted.endswith("\\")


@pytest.mark.parametrize("bad", ["\n", "a\nb", "\r", "\0", "\x1b", "\x85", "\u2028", "\u202e"])
def test_control_characters_never_get_into_a_unit(bad: str) -> None:
    for quote in (quoting.exec_word, quoting.line, quoting.escaped_path, lambda value: quoting.assignment("A", value)):
        with pytest.raises(ValueError, match="a control character can't stand in a unit"):
            quote(bad)
    with pytest.raises(ValueError, match="a control character"):
        quoting.command_line(["/bin/true", bad])
