"""Every action of every page has a plan, and an undo or the reason why there is none."""

import re
from collections.abc import Iterator
from pathlib import Path

from helmd.web.pages.assets import STATIC
from helmd.web.pages.rendering import TEMPLATES
from tests.system.dialogs import dialogs

SYSTEM = Path(__file__).resolve().parents[1] / "system"


def without_strings(text: str) -> str:
    """Return TEXT of a script with comments, strings and templates emptied: its braces are those of its code."""
    kept: list[str] = []
    nesting: list[int] = []
    depth = at = 0
    while at < len(text):
        if found := re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.S).match(text, at):
            kept.append('""')
            at = found.end()
        elif text[at] == "`" or (text[at] == "}" and nesting and nesting[-1] == depth):
            # Within a template, up to its end or to what is inserted.
            if text[at] == "}":
                nesting.pop()
                kept.append("}")
            end = re.compile(r"(?:\\.|[^`\\$]|\$(?!\{))*", re.S).match(text, at + 1)
            assert end is not None
            at = end.end()
            if text[at] == "$":
                nesting.append(depth)
                kept.append("{")
                at += 1
            at += 1
        else:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            kept.append(text[at])
            at += 1
    return "".join(kept)


def literals(text: str) -> Iterator[set[str]]:
    """Yield the keys of each object that TEXT writes down."""
    for begin in (found.start() for found in re.finditer(r"\{", text)):
        level, own = 0, []
        for each in text[begin:]:
            level += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(each, 0)
            if level == 0:
                break
            if level == 1:
                own.append(each)
        yield set(re.findall(r"(?:^\{|,)\s*(\w+)(?=\s*[:,(]|\s*$)", "".join(own)))


def test_every_action_has_a_plan_and_an_undo_or_the_reason_why_none() -> None:
    found = {
        path.name: [keys for keys in literals(without_strings(path.read_text())) if {"title", "confirm"} <= keys]
        for path in STATIC.glob("*.js")
        if "runAction(" in path.read_text()
    }
    assert {name for name, actions in found.items() if actions} == {
        "action.js", "modules.js", "security.js", "service.js", "users.js",
    }  # fmt: skip
    assert sum(map(len, found.values())) > 18
    for name, actions in found.items():
        for keys in actions:
            assert "plan" in keys, f"{name}: an action without a plan: {keys}"
            # The inverse of an action is named by its label; users' are joined to one another by "back".
            assert keys & {"undo", "back", "label"}, f"{name}: an action that says nothing of its undo: {keys}"


def test_every_button_that_sends_a_request_says_what_it_does_and_why_it_has_no_undo() -> None:
    texts = [path.read_text() for path in TEMPLATES.glob("*.html")]
    buttons = [found for text in texts for found in re.findall(r'<button [^>]*data-action="request"[^>]*>', text)]
    assert len(buttons) == 2
    assert all("data-plan=" in button and "data-undo=" in button and "data-ended=" in button for button in buttons)


def test_every_dialog_is_opened_by_a_test_that_has_axe_look_at_it() -> None:
    """Its name stands in a test of pages, which gives it to `Dashboard.check_dialog`."""
    texts = [path.read_text() for path in SYSTEM.glob("test_page_*.py")]
    found = dialogs()
    assert len(found) > 30
    assert {"keys.js: Keys", "users.js: New user", "logs.html: logs-range", "jobs.html: Make a backup"} <= found
    assert [name for name in sorted(found) if not any(name in text for text in texts)] == []
