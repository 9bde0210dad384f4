"""Writing terms of queries."""

import re

from helmd.model.logs.query_language.fields import FIELD_COLUMNS

_PLAIN = re.compile(r"[\w@.+-]+\Z", re.ASCII)
_KEY = re.compile(r"[\w-]+\Z", re.ASCII)
_FIELDS = {column: field for field, column in FIELD_COLUMNS.items() if field != "pattern"}


def written_term(subject: str, value: str | None) -> str:
    """Return the term that selects the entries with VALUE, or without any, in SUBJECT: a column, or ``context.KEY``."""
    field = _FIELDS.get(subject, subject)
    if value is None:
        return f"-has:{field}"
    return f"{field}:{value if _PLAIN.match(value) else quoted(value)}"


def written_key(key: str) -> str:
    """Return the field for a KEY of the context."""
    return f"context.{key if _KEY.match(key) else quoted(key)}"


def quoted(*parts: str) -> str:
    """Return PARTS in quotes, with asterisks between them, and their own escaped."""
    return '"' + "*".join(re.sub(r'(["\\*])', r"\\\1", part) for part in parts) + '"'
