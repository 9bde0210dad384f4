"""What a line's text says, and what is known about the forms that such texts have: the compiled ``formats.toml``."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from helmd.model.logs.ids import given_id

FormatKind = Literal["pattern", "json", "logfmt"]


class Parsed(NamedTuple):
    """What a line's text says. None is for what it does not say."""

    level: str | None
    message: str
    context: dict[str, object] | None = None
    """Can be stored as jsonb as it is: no NUL, no lone surrogate, no NaN, at most 64 levels deep."""
    trace_id: str | None = None
    user_id: str | None = None
    process_id: int | None = None
    """The pid that the text states; anybody can write anything there."""
    complete: bool = False
    """Its format has everything on one line, so no later line belongs to it."""


@dataclass(frozen=True, slots=True)
class Mention:
    """How an id is found in running text: PATTERN, whose group ``id`` it is, where one of WORDS occurs."""

    words: tuple[str, ...]
    pattern: re.Pattern[str]
    common: str = ""
    """A piece that all words have in common."""
    pieces: tuple[str, ...] = ()
    """Fewer pieces than words, of which each word has one in it."""
    read: Callable[[str], str | None] = given_id
    """The id that the group's text stands for, or None."""


LevelWords = Mapping[str, tuple[str, bool]]
"""Levels by what they are called; False for a word that says more than the level does, so that it is kept."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """One form of a line."""

    name: str
    kind: FormatKind = "pattern"
    pattern: re.Pattern[str] | None = None
    groups: tuple[str, ...] = ()
    """The names of the pattern's groups, in their order."""
    level: str | None = None
    levels: LevelWords | None = None
    """Its own words for levels and all others'; None for just those of all."""
    numbers: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    """Empty for all."""
    again: bool = False
    complete: bool = False
    late: bool = False
    """It is tried only on lines that have no head of a logger."""
    needle: str = ""
    """Text that every line of this form has in it: to look for it takes less time than to try the pattern."""


ROLES = ("level", "message", "timestamp", "trace_id", "user_id", "process_id")
"""What a key of a JSON or logfmt line can stand for, besides tables that are looked into."""

Keys = tuple[str | None, ...]
"""The keys of one object that stand for the ROLES."""


class Shape(NamedTuple):
    """What the names of an object's keys say."""

    keys: Keys | None
    """None if it depends on the values as well."""
    status: str | None
    """The key of the HTTP status, if the object is an access line."""


def folded(key: str) -> str:
    """Return KEY without case and separators: libraries write "log.level", "LogLevel" and "log_level"."""
    return key.translate(_SEPARATORS).lower()


_SEPARATORS = str.maketrans("", "", "_-.@ ")

Table = Mapping[str, tuple[TextFormat, ...]]
"""The formats to try, by the first character of a text; under "" those for any other one."""


@dataclass(frozen=True, slots=True)
class Formats:
    """All of ``formats.toml``, ready for use."""

    common: Table
    services: Mapping[str, Table]
    """For services that formats name, instead of ``common``."""
    inside: tuple[tuple[str, TextFormat], ...]
    """Formats that are also tried on the message of another one if it has the text in it."""
    levels: LevelWords
    roles: Mapping[str, str]
    """What a key of a JSON or logfmt line stands for."""
    ranks: Mapping[str, int]
    """Among keys of one role the one of the least rank counts."""
    nested: Mapping[str, Mapping[str, str]]
    """Keys whose tables are looked into, each with the roles of the keys there."""
    trace: Mention | None
    user: Mention | None
    shapes: dict[tuple[str, ...], Shape] = field(default_factory=dict, compare=False)
    """Remembered: the keys that stand for something in objects that have just these names."""


def level_of(levels: LevelWords, word: str) -> tuple[str, bool] | None:
    """Return the level that WORD is for, in any case."""
    return levels.get(word) or (levels.get(word.strip().lower()) if len(word) <= 40 else None)


def mentioned(mention: Mention | None, text: str) -> str | None:
    """Return the id that TEXT mentions."""
    if mention is not None and mention.common in text:
        for piece in mention.pieces:
            if piece in text:
                break
        else:
            return None
        for word in mention.words:
            if word in text:
                found = mention.pattern.search(text, 0, 8192)
                # A group that takes no part in the match is None.
                return None if found is None or not found["id"] else mention.read(found["id"])
    return None


DISABLED = "disabled because they take too long"
"""What the status of both daemons says of such formats, before their names."""


class RunawayError(RuntimeError):
    """A pattern takes too long; raised in the middle of its match."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        super().__init__(f"a pattern takes too long: {pattern.pattern[:200]}")
        self.pattern = pattern


def without_pattern(formats: Formats, pattern: re.Pattern[str]) -> tuple[Formats, str]:
    """Return FORMATS without what uses PATTERN, and the name of that in formats.toml."""
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
