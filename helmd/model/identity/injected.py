"""What the gateway adds to pages, as far as a Content-Security-Policy (CSP Level 3) is concerned with it.

Learned from a page of Helm's that holds nothing but a text: whatever else is in it when it comes through the gateway
was added there. No I/O.
"""

import base64
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

from helmd.model.counted import counted
from helmd.model.printable import printable
from helmd.model.urls import origin_of

PROBE_PATH = "/helm/page-probe"
"""The page of Helm's that holds nothing but a text, as the gateway serves it."""
MAX_SCRIPTS = 40
"""Inline scripts, or URLs of scripts, of one page; a page with more is refused as a whole."""
_SHOWN = 40
"""Characters of a script by which it is named."""
_LONGEST_PATH = 300
_PATH = re.compile(r"/[A-Za-z0-9._~!$&()*+=:@%/-]*\Z")
"""Without what would end a source of the policy: spaces, commas and semicolons."""
_HASH = re.compile(r"sha256-[A-Za-z0-9+/]{43}=\Z")
_JAVASCRIPT = frozenset(
    {"", "module", "text/javascript", "application/javascript", "text/ecmascript", "application/ecmascript"}
)
"""Types of scripts that are run; others are data."""
_MARKUP_FROM_TEXT = re.compile(
    r"\.\s*(?:inner|outer)HTML\s*=[^=]|\binsertAdjacentHTML\b|\bdocument\s*\.\s*write|\.\s*srcdoc\b"
    r"|\bcreateContextualFragment\b|\beval\s*\(|\bnew\s+Function\b|\bparseFromString\b"
)
"""What Trusted Types refuse, as far as the text of a script shows it."""


@dataclass(frozen=True, slots=True)
class Injected:
    """What a policy allows of it, and what not."""

    scripts: tuple[str, ...] = ()
    """Sources of inline scripts: ``sha256-...``."""
    styles: tuple[str, ...] = ()
    """The sources of ``<style>`` elements."""
    script_paths: tuple[str, ...] = ()
    """Paths of scripts of the gateway's own, at its own origin."""
    blocked: tuple[str, ...] = ()
    """What does not work on Helm's pages, each as a sentence about it."""


NOTHING_INJECTED = Injected()
"""Nothing is known, or nothing added."""


class InjectedError(ValueError):
    """A page from which nothing can be learned; the text says why."""


@dataclass(frozen=True, slots=True)
class LearnedPage:
    """What was learned last, or why nothing was. ``run`` is the invocation id of the gateway's unit.

    ``learned`` and ``tried`` are in seconds since the epoch; ``learned`` is 0 where nothing is known.
    """

    run: str = ""
    tried: float = 0.0
    learned: float = 0.0
    injected: Injected = NOTHING_INJECTED
    trouble: str = ""
    hint: str = ""


@dataclass(slots=True)
class _Found:
    inline: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    sheets: list[str] = field(default_factory=list)
    handlers: int = 0
    style_attributes: int = 0
    text: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    """Collects what a policy is concerned with."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found = _Found()
        self._open: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in reversed(attrs)}
        found = self.found
        found.handlers += sum(name.startswith("on") for name in given)
        found.handlers += sum(value.strip().lower().startswith("javascript:") for value in given.values())
        found.style_attributes += "style" in given
        self._open = None
        if tag == "script" and given.get("type", "").strip().lower() in _JAVASCRIPT:
            if "src" in given:
                found.sources.append(given["src"].strip())
            else:
                self._open = found.inline
        elif tag == "style":
            self._open = found.styles
        elif tag == "link" and "stylesheet" in given.get("rel", "").lower().split():
            found.sheets.append(given.get("href", "").strip())
        if self._open is not None:
            self._open.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is None:
            self.found.text.append(data)
        else:
            self._open[-1] += data


def _read(page: str, marker: str) -> _Found:
    """Raise InjectedError unless it is the page with MARKER."""
    reader = _Reader()
    # As browsers do before they read it (HTML, section 13.2.3.5).
    reader.feed(page.replace("\r\n", "\n").replace("\r", "\n"))
    reader.close()
    found = reader.found
    if marker not in "".join(found.text):
        raise InjectedError("it did not pass on the page that Helm has for this")
    if len(found.inline) + len(found.sources) + len(found.styles) > MAX_SCRIPTS:
        raise InjectedError(f"it adds more than {MAX_SCRIPTS} scripts and styles")
    return found


def source_of(text: str) -> str:
    """Return the source of a policy that allows an inline script or style with this TEXT (CSP Level 3, section
    2.3.1).
    """
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()).decode()


def learned(
    pages: Sequence[str], marker: str, url: str, personal: Collection[str], services: Collection[str]
) -> Injected:
    """Return what the gateway adds to the page with MARKER at URL, of which PAGES are several answers, of a session
    each.

    What differs between these, or names the account by one of the texts in PERSONAL, differs by user: its hash would be
    of no use. Below the path of one of the SERVICES a script would be that service's. Raises InjectedError.
    """
    first, *others = (_read(page, marker) for page in pages)
    known = [{*other.inline, *other.styles} for other in others]
    names = [each.lower() for each in personal]
    blocked = []

    def same_for_all(text: str, what: str) -> bool:
        if all(text in each for each in known) and not any(name in text.lower() for name in names):
            return True
        blocked.append(f"{what} differs by user or session")
        return False

    scripts = []
    for text in dict.fromkeys(first.inline):
        what = f"the script that begins with “{_beginning(text)}”"
        if same_for_all(text, what):
            scripts.append(source_of(text))
            if _MARKUP_FROM_TEXT.search(text):
                blocked.append(f"{what} makes markup or code from text, which Trusted Types refuse")
    styles = [
        source_of(text)
        for text in dict.fromkeys(first.styles)
        if same_for_all(text, f"the style that begins with “{_beginning(text)}”")
    ]
    paths = []
    for source in dict.fromkeys(first.sources):
        path, why = _own_path(source, url, services)
        if why:
            blocked.append(f"the script {printable(source, _SHOWN)} {why}")
        else:
            paths.append(path)
    for sheet in dict.fromkeys(first.sheets):
        if _origin(_joined(url, sheet)) != origin_of(url):
            blocked.append(f"the style sheet {printable(sheet, _SHOWN)} is of another origin")
    if first.handlers:
        blocked.append(f"{counted(first.handlers, 'script')} in attributes or links")
    if first.style_attributes:
        blocked.append(counted(first.style_attributes, "style attribute"))
    return Injected(tuple(scripts), tuple(styles), tuple(paths), tuple(blocked))


def _beginning(text: str) -> str:
    return printable(" ".join(text.split()), _SHOWN)


def _own_path(source: str, page: str, services: Collection[str]) -> tuple[str, str]:
    """Return the path of a script of the gateway's own; or why it is not allowed, as the end of a sentence."""
    url = _joined(page, source)
    if _origin(url) != origin_of(page):
        return "", "is of another origin"
    path = urlsplit(url).path
    if not _PATH.match(path) or len(path) > _LONGEST_PATH or "//" in path or "%" in path or ".." in path:
        return "", "has a path that a policy can't name"
    if path.endswith("/") or path.split("/")[1] in services:
        return "", "is not of the gateway's own"
    return path, ""


def _joined(page: str, reference: str) -> str:
    """Return the URL of a REFERENCE on the page; empty for what is none."""
    try:
        return urljoin(page, reference)
    except ValueError:
        return ""


def _origin(url: str) -> str:
    """Return the origin of URL; empty for one that has none."""
    try:
        return origin_of(url) if urlsplit(url).hostname else ""
    except ValueError:
        return ""


def learned_text(page: LearnedPage) -> str:
    """Return the content of the file with what was learned."""
    return json.dumps(asdict(page), indent=1) + "\n"


def learned_in(text: str) -> LearnedPage:
    """Return what `learned_text` was given. Raises ValueError for anything else."""
    document: Any = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("injected"), dict):
        raise ValueError("it is not what helmd writes")
    lists = {each.name: _texts(document["injected"].get(each.name)) for each in fields(Injected)}
    injected = Injected(**lists)
    if not all(_HASH.match(each) for each in (*injected.scripts, *injected.styles)):
        raise ValueError("it has hashes that are none")
    if not all(_PATH.match(each) for each in injected.script_paths):
        raise ValueError("it has paths that are none")
    page = LearnedPage(injected=injected)
    for name in ("run", "trouble", "hint"):
        if not isinstance(document.get(name), str):
            raise ValueError(f"{name} is not a text")
    for name in ("tried", "learned"):
        if not isinstance(document.get(name), int | float) or isinstance(document[name], bool):
            raise ValueError(f"{name} is not a time")
    return replace(page, **{name: document[name] for name in ("run", "trouble", "hint", "tried", "learned")})


def _texts(given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError("it is not what helmd writes")
    return tuple(given)
