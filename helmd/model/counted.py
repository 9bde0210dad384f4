"""Numbers with their noun."""


def counted(count: int, noun: str) -> str:
    """Return COUNT and NOUN, whose plural ends in "s": "1 unit", "2 units", "1,000 units"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
