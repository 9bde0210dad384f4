"""The result of parsing a line's text, and the compiled ``formats.toml`` by which it is parsed."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from helmd.model.logs.ids import given_id

FormatKind = Literal["pattern", "json", "logfmt"]


class Parsed(NamedTuple):
    """The values in a line's text; None for those that it does not state."""

    level: str | None
    message: str
    context: dict[str, object] | None = None
    """Can be stored as jsonb unchanged: no NUL, no lone surrogate, no NaN, at most 64 levels deep."""
    trace_id: str | None = None
    user_id: str | None = None
    process_id: int | None = None
    """The pid in the text, which is not trusted."""
    complete: bool = False
    """Whether no later line belongs to it, since its format is for single lines."""


@dataclass(frozen=True, slots=True)
class Mention:
    """Rules for an id in a message: if the text contains one of WORDS, the id is the group ``id`` of PATTERN."""

    words: tuple[str, ...]
    pattern: re.Pattern[str]
    common: str = ""
    """A substring that all words have in common."""
    prefixes: tuple[str, ...] = ()
    """The beginnings of the words, without duplicates."""
    read: Callable[[str], str | None] = given_id
    """Returns the id for the group's text, or None."""


LevelWords = Mapping[str, tuple[str, bool]]
"""Levels by their names, and whether the name is exact: if not, it has more meaning and is stored as well."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """A form of lines: an entry of ``[formats]``."""

    name: str
    kind: FormatKind = "pattern"
    pattern: re.Pattern[str] | None = None
    groups: tuple[str, ...] = ()
    """The names of the pattern's groups, in their order."""
    level: str | None = None
    levels: LevelWords | None = None
    """Its own names of levels and the common ones; None if it has none of its own."""
    numbers: tuple[str, ...] = ()
    """Groups to be stored as integers."""
    services: tuple[str, ...] = ()
    """Empty for all."""
    again: bool = False
    """Whether the message is parsed as a line."""
    complete: bool = False
    late: bool = False
    """Whether it is tried only on lines without a logger's head."""
    needle: str = ""
    """Text that every line of this form contains; searching for it takes less time than trying the pattern."""


ROLES = ("level", "message", "timestamp", "trace_id", "user_id", "process_id")
"""The meanings of keys of a JSON or logfmt line, besides those of nested objects."""

Keys = tuple[str | None, ...]
"""The keys of one object that have the ROLES, in their order; None for a role that no key has."""


class Shape(NamedTuple):
    """The keys of an object that have a meaning, as far as their names show it."""

    keys: Keys | None
    """None if it depends on the values as well."""
    status: str | None
    """The key of the HTTP status, if the object is an access line."""


def folded(key: str) -> str:
    """Return KEY in lower case without separators: libraries write "log.level", "LogLevel" and "log_level"."""
    return key.translate(_SEPARATORS).lower()


_SEPARATORS = str.maketrans("", "", "_-.@ ")

Table = Mapping[str, tuple[TextFormat, ...]]
"""The formats to try, by the first character of a text; "" has those for other characters."""


@dataclass(frozen=True, slots=True)
class Formats:
    """All of ``formats.toml``, ready for use."""

    common: Table
    services: Mapping[str, Table]
    """Instead of ``common``, for services that formats name."""
    inside: tuple[tuple[str, TextFormat], ...]
    """Formats that are also tried on the message of another one, if it contains the text."""
    levels: LevelWords
    roles: Mapping[str, str]
    """The role of each key of a JSON or logfmt line: one of ROLES, or "nested"."""
    ranks: Mapping[str, int]
    """Among keys of one role, that of the lowest rank is used."""
    nested: Mapping[str, Mapping[str, str]]
    """The keys of nested objects that are parsed, each with the roles of the keys in it."""
    trace: Mention | None
    user: Mention | None
    shapes: dict[tuple[str, ...], Shape] = field(default_factory=dict, compare=False)
    """A cache, by the names of an object's keys."""


def level_of(levels: LevelWords, word: str) -> tuple[str, bool] | None:
    """Return the level named WORD, ignoring case, and whether the name is exact; None if there is none."""
    return levels.get(word) or (levels.get(word.strip().lower()) if len(word) <= 40 else None)


def mentioned_id(mention: Mention | None, text: str) -> str | None:
    """Return the id that TEXT contains by the rules of MENTION, or None."""
    if mention is not None and mention.common in text:
        for prefix in mention.prefixes:
            if prefix in text:
                break
        else:
            return None
        for word in mention.words:
            if word in text:
                found = mention.pattern.search(text, 0, 8192)
                # An optional group may be None.
                return None if found is None or not found["id"] else mention.read(found["id"])
    return None


DISABLED = "disabled because they take too long"
"""The text before the names of such formats in the status of both daemons."""


class RunawayError(RuntimeError):
    """A pattern takes too long. Raised while it is being matched."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        super().__init__(f"a pattern takes too long: {pattern.pattern[:200]}")
        self.pattern = pattern


def without_pattern(formats: Formats, pattern: re.Pattern[str]) -> tuple[Formats, str]:
    """Return FORMATS without the format or mention that has PATTERN, and its name in formats.toml."""
    names = {form.name for form in _all_forms(formats) if form.pattern is pattern}
    name = f"formats.{min(names)}" if names else "mentions.trace_id"
    if formats.user is not None and formats.user.pattern is pattern:
        name = "mentions.user_id"

    def others(table: Table) -> Table:
        return {first: tuple(form for form in forms if form.pattern is not pattern) for first, forms in table.items()}

    def other(mention: Mention | None) -> Mention | None:
        return None if mention is None or mention.pattern is pattern else mention

    left = replace(
        formats,
        common=others(formats.common),
        services={service: others(table) for service, table in formats.services.items()},
        inside=tuple((needle, form) for needle, form in formats.inside if form.pattern is not pattern),
        trace=other(formats.trace),
        user=other(formats.user),
    )
    return left, name


def _all_forms(formats: Formats) -> Iterator[TextFormat]:
    for table in (formats.common, *formats.services.values()):
        for forms in table.values():
            yield from forms
    yield from (form for _, form in formats.inside)
