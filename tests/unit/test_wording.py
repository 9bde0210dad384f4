"""The source and its documents use the terms of the field (`tests/wording.py` has the denied words)."""

from pathlib import Path

import pytest

from tests.wording import DENIED, denied, exempt, files, found_in


def test_no_file_has_more_denied_words_than_it_is_exempt_for() -> None:
    allowed = exempt()
    wrong = []
    for name in files():
        found = found_in(name)
        if len(found) > allowed.get(name, 0):
            wrong.append(f"{name}: {len(found)} denied words, {allowed.get(name, 0)} are exempt:")
            wrong += [f"    {line}" for line in found]
    assert not wrong, "\n".join(wrong)


def test_exemptions_shrink() -> None:
    """A file that was cleaned must not become worse again."""
    known = set(files())
    stale = [name for name, count in exempt().items() if name not in known or len(found_in(name)) < count]
    assert not stale, f"run python3 -m tests.wording --update: {', '.join(stale)}"


def test_scripts_style_sheets_and_templates_are_searched() -> None:
    searched = files()
    assert {"helmd/web/static/live.js", "helmd/web/static/helm.css", "helmd/web/templates/base.html"} <= set(searched)
    assert not [name for name in searched if "/vendor/" in name]


def test_a_property_of_css_is_not_denied_in_a_style_sheet(tmp_path: Path) -> None:
    style = "/* no border between these */\n.helm-borders { border-top: 0; border: 0; }\n"
    for name in ("a.css", "a.py"):
        (tmp_path / name).write_text(style)
    assert [line.rsplit(maxsplit=1)[-1] for line in found_in(str(tmp_path / "a.css"))] == ["border", "borders"]
    assert len(found_in(str(tmp_path / "a.py"))) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("as it was told", ["told"]),
        ("_told, TOLD and retold", ["told", "TOLD"]),
        ("class NewsFeed: room_of", ["News", "room"]),
        ("the newsletter of a roommate, momentary", []),
        ("this is no number; there is no file; it is no longer", ["is no"]),
        ("put_an_end_to(task)", ["put_an_end_to"]),
    ],
)
def test_what_is_denied(text: str, words: list[str]) -> None:
    assert [word for _, word in denied(text)] == words


def test_every_denied_word_has_a_replacement() -> None:
    assert all(DENIED.values())
