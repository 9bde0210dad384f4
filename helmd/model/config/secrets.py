"""Whether text holds a password of PostgreSQL, in any form that libpq reads ("Connection Strings")."""

import re
from urllib.parse import unquote

_IN_URI = re.compile(r"://[^/@\s:]*:[^/@\s]+@")
_KEYWORD = re.compile(r"(?<![\w-])(?:ssl)?password\s*=\s*(?!\s|\Z|&|[\"']\s*(?:[\"']|$))", re.IGNORECASE | re.MULTILINE)
_PASSFILE = re.compile(r"(?<![\w-])passfile\s*=\s*([^&\s\"']+)")


def holds_password(text: str) -> bool:
    """Return whether a URI in TEXT has a password, or a keyword of a connection string sets one, percent-encoded or
    not.

    libpq decodes the keywords of a URI as well, so ``?p%61ssword=x`` counts.
    """
    return any(pattern.search(each) for pattern in (_IN_URI, _KEYWORD) for each in (text, unquote(text)))


def password_files(text: str) -> tuple[str, ...]:
    """Return the password files that connection strings in TEXT name."""
    return tuple(dict.fromkeys(unquote(name) for name in _PASSFILE.findall(text)))
