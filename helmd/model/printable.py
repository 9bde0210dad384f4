"""Text from outside, as it may be printed: a terminal obeys control characters, so they are shown instead."""


def printable(text: str, limit: int = 0) -> str:
    """TEXT with control characters, escapes among them, written out; with LIMIT cut to so many characters."""
    shown = text
    if not text.isprintable():
        shown = "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)
    return shown[: limit - 1] + "…" if limit and len(shown) > limit else shown
