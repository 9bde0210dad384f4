"""Text from outside as it may be shown: a terminal obeys control characters, so they are written out instead."""


def printable(text: str, limit: int = 0) -> str:
    r"""TEXT with what is not printable written out as Python does (``\x1b``, ``\u202e``), except tabs.

    That is control characters (C0, C1, DEL), line breaks, characters that change the direction of text, surrogates and
    unusual spaces. With LIMIT the result is cut to so many characters.
    """
    shown = text if text.isprintable() else "".join(c if c.isprintable() or c == "\t" else _escape(c) for c in text)
    return shown[: limit - 1] + "…" if limit and len(shown) > limit else shown


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
