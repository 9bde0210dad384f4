"""Live parts of a page: responses omit the rows that the browser has already.

A template marks them by filters: ``{% filter live_part %}`` around the part, ``{% filter live_row("service-core") %}``
around each row of a table, whose element has that id. The part gets a tag (``data-live-tag``), which its reader sends
back. A row that was the same under that tag is sent as an empty element with ``data-live-same``.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

_TIME_TEXT = re.compile(r"(<time\b[^>]*>)[^<]*")
_MOST_TAGS = 256
"""Maximum number of tags kept. Requests with an older one get the whole part."""
_MARK = secrets.token_hex(8)
"""Placeholder of a row until the part is complete; random, so that no text of a page can contain it."""
_MARKED = re.compile(f"{_MARK}:([^:]+):")


@dataclass(slots=True)
class LiveRendering:
    """One rendering. ``known`` has the digests of the rows that the reader's page has, by their id."""

    known: Mapping[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    tag: str = ""
    """Of the part, once it is rendered; empty where the template has no `live_part`."""


class LiveParts:
    """Remembers which rows belong to a tag."""

    def __init__(self) -> None:
        self._rows: dict[str, Mapping[str, str]] = {}

    def known(self, tag: str | None) -> Mapping[str, str]:
        """Return the rows of a page that has TAG; none if that is not remembered."""
        return self._rows.get((tag or "").removeprefix("W/").strip('"'), {})

    @pass_context
    def row(self, context: Context, text: str, id: str) -> Markup:
        """Return the filter ``live_row``."""
        context["live"].texts[id] = text
        return Markup("{}:{}:").format(_MARK, id)

    @pass_context
    def part(self, context: Context, text: str) -> Markup:
        """Return the filter ``live_part``."""
        live: LiveRendering = context["live"]
        digests = {id: part_digest(row) for id, row in live.texts.items()}
        live.tag = part_digest(_MARKED.sub(lambda found: digests[found[1]], text))
        self._remember(live.tag, digests)

        def shown(found: re.Match[str]) -> str:
            id = found[1]
            return f'<tr id="{id}" data-live-same></tr>\n' if live.known.get(id) == digests[id] else live.texts[id]

        whole = _MARKED.sub(shown, text)
        return Markup(whole.replace(" data-live-part=", f' data-live-tag="{live.tag}" data-live-part=', 1))  # noqa: S704

    def _remember(self, tag: str, digests: Mapping[str, str]) -> None:
        self._rows.pop(tag, None)
        self._rows[tag] = digests
        while len(self._rows) > _MOST_TAGS:
            del self._rows[next(iter(self._rows))]


def part_digest(text: str) -> str:
    """Return names TEXT, but for what stands in its times: scripts write that, and keep it up to date."""
    return hashlib.sha256(_TIME_TEXT.sub(r"\1", text).encode()).hexdigest()[:24]
