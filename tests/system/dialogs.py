"""The names of all dialogs and popovers that pages can open, found in scripts and templates.

A name consists of the file and the title there ("users.js: Edit ${user.name}"). A test must open each and pass its name
to ``Dashboard.check_dialog``; tests/unit/test_actions.py fails if none does.
"""

import re
from collections.abc import Iterator

from helmd.web.pages.assets import STATIC
from helmd.web.pages.rendering import TEMPLATES

_LITERAL = re.compile(r'"([^"]+)"|`([^`]+)`')
_INSERTED = re.compile(r"\$\{(?:[^{}]|\{[^{}]*\})*\}|\{\{.*?\}\}")


def dialogs() -> set[str]:
    """Return the names of all dialogs and popovers."""
    return {f"{name}: {title}" for name, title in (*_of_scripts(), *_of_templates())}


def pattern(name: str) -> str:
    """Return a regular expression for the title of the open dialog NAME, with any text for inserted values."""
    _, _, title = name.partition(": ")
    return ".*".join(map(re.escape, _INSERTED.split(title)))


def _of_scripts() -> Iterator[tuple[str, str]]:
    for path in STATIC.glob("*.js"):
        text = path.read_text()
        # The options of an action have their title at the beginning of a line.
        titles = re.findall(r"^ +title: (.+),$", text, re.M) if "runAction" in text else []
        # Others have a label, or a heading that labels them.
        titles += re.findall(r'"dialog",\s*\{[^}]*?"aria-label": ("[^"]+")', text)
        titles += re.findall(r'"dialog",\s*\{[^}]*?"aria-labelledby": "[^"]+".*?"h2".*?\}, ("[^"]+")', text, re.S)
        titles += re.findall(r'popover: "auto".*?"aria-label": ("[^"]+"|`[^`]+`)', text, re.S)
        for title in titles:
            yield from ((path.name, one or other) for one, other in _LITERAL.findall(title))


def _of_templates() -> Iterator[tuple[str, str]]:
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text()
        for tag in re.findall(r"<[a-z]+ [^>]*>", text):
            if 'data-action="request"' in tag or " popover" in tag.replace("popovertarget", ""):
                found = re.search(r'(?:data-title|id)="([^"]+)"', tag)
                assert found is not None, f"{path.name}: without a title: {tag}"
                yield path.name, found[1]
            assert not tag.startswith("<dialog"), f"{path.name}: dialogs are made by scripts: {tag}"
