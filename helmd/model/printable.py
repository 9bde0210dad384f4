"""Text from outside as it may be shown: a terminal obeys control characters, so they are written out instead."""

import re

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""What pages write out; static/dom.js has the same.

Controls but tab and line feed, what turns the direction of text, characters without a glyph, and surrogates, which
can't be encoded. Joiners (U+200C, U+200D) are left, which Persian and emoji are written with.
"""


def without_unseen(text: str) -> str:
    r"""TEXT of others for a page: what is not seen, or misleads, is written out (``\x1b``, ``\u202e``)."""
    return UNSEEN.sub(lambda found: _escape(found[0]), text)


def printable(text: str, limit: int = 0) -> str:
    r"""TEXT with what is not printable written out as Python does (``\x1b``, ``\u202e``), except tabs.

    That is control characters (C0, C1, DEL), line breaks, characters that change the direction of text, surrogates and
    unusual spaces. With LIMIT the result is truncated to that many characters.
    """
    shown = text if text.isprintable() else "".join(c if c.isprintable() or c == "\t" else _escape(c) for c in text)
    return shown[: limit - 1] + "…" if limit and len(shown) > limit else shown


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
