"""The settings of ``formats.toml``, and reading its files to compiled formats, with all faults reported together."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from helmd.model.config import validators as values
from helmd.model.config.setting import Setting
from helmd.model.config.toml_lines import Lines, line_of
from helmd.model.config.toml_tables import ConfigSource, Given, SettingsReader, parse_toml, shown_key
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.logs.ids import given_id, trace_id_in
from helmd.model.logs.level import NAMES, level_named
from helmd.model.logs.parsing.needles import needle_of
from helmd.model.logs.parsing.parsed import Formats, LevelWords, Mention, Table, TextFormat, folded
from helmd.model.suite.names import SERVICE_NAME

_FORMAT_NAME = re.compile(r"[a-z][a-z0-9_-]{0,49}\Z")
_PIECE = re.compile(r"@([A-Za-z_][A-Za-z0-9_]{0,49})@")
_PREFIX_LENGTH = 6
"""Number of characters of a mention's words that are searched for first."""
LATE = 200
"""Formats of this order or a higher one are tried only on lines without a logger's head."""
_MOST = 500
"""Maximum number of items in a list or table of a file."""


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MOST:
        raise ValueError("must be a list of texts")
    read = tuple(values.text(item) for item in value)
    if "" in read:
        raise ValueError("must not hold an empty text")
    return read


def _level(value: object) -> str:
    return level_named(values.text(value))


def _levels(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or len(value) > _MOST:
        raise ValueError('must be a table of words and levels, such as { SEVERE = "error" }')
    return {word: _level(level) for word, level in value.items()}


def _services(value: object) -> tuple[str, ...]:
    """Return names of services, including Helm's own and those of the clusters. Raises ValueError."""
    for name in (read := _texts(value)):
        if not SERVICE_NAME.match(name):
            raise ValueError(f"{shown_key(name)!r} is not a service name")
    return read


def _characters(value: object) -> str:
    read = values.text(value)
    if not read:
        raise ValueError("must name at least one character")
    return read


FORMAT_SETTINGS = (
    Setting("enabled", values.boolean, "true | false", "true", "Whether it is used."),
    Setting(
        "kind",
        values.choice("pattern", "json", "logfmt"),
        "choice",
        "pattern",
        "What a line is: text that a pattern matches, one JSON object, or key=value pairs and nothing else.",
    ),
    Setting(
        "pattern",
        values.text,
        "regular expression",
        "none",
        "What the line begins with, in the syntax of Python's re module. Its named groups level, message, timestamp, "
        "trace_id, user_id, pid and status (of HTTP) have a meaning; other ones become context.",
    ),
    Setting(
        "first",
        _characters,
        "characters",
        "any",
        "The characters that such a line can begin with; other lines are spared the pattern.",
    ),
    Setting(
        "order",
        values.integer(0, 1_000_000),
        "number",
        "50",
        "The least is tried first; Helm's own are over 100. Those from 200 are tried only on lines without a level.",
    ),
    Setting("services", _services, "names", "all", "The services whose lines it is for."),
    Setting("level", _level, "level", "none", "The level of a line whose text names none."),
    Setting("levels", _levels, "table", "{}", "Words of its own for levels, besides those of [levels]."),
    Setting("numbers", _texts, "groups", "none", "Groups that are kept as integers."),
    Setting(
        "inside",
        values.text,
        "text",
        "none",
        "With this text in it, the message of a line of another format is tried as well: an access line that was "
        "logged by logging.",
    ),
    Setting("again", values.boolean, "true | false", "false", "Whether the message is itself a line to be read."),
    Setting(
        "complete",
        values.boolean,
        "true | false",
        "false",
        "Whether no further line (a traceback, an indented one) can belong to such a line, whatever its level.",
    ),
)

FIELD_SETTINGS = tuple(
    Setting(key, _texts, "keys", "see the file", meaning)
    for key, meaning in (
        ("level", "Keys of the level: a word or number of [levels]."),
        ("message", "Keys of the message."),
        ("timestamp", "Keys of the time; it is kept only if it is over two seconds off the journal's."),
        ("trace_id", "Keys of the trace or correlation id."),
        ("user_id", "Keys of the user's id."),
        ("process_id", "Keys of the process id."),
        ("nested", "Keys of tables in which the same keys are looked for as well."),
    )
)

MENTION_SETTINGS = (
    Setting("words", _texts, "texts", "none", "Texts of which one is in every line that mentions such an id."),
    Setting("pattern", values.text, "regular expression", "none", "Where the id is; its group id is the id itself."),
)

_MENTIONS = ("trace_id", "user_id")
_TABLES = ("pieces", "fields", "mentions", "levels", "formats")

FormatTable = dict[str, Given]


class _Read:
    """The merged content of the files."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.pieces: dict[str, str] = {}
        self.levels: dict[str, str] = {}
        self.fields: dict[str, tuple[str, ...]] = {}
        self.mentions: dict[str, FormatTable] = {}
        self.formats: dict[str, FormatTable] = {}
        self.places: dict[str, Given] = {}


def read_formats(sources: Sequence[ConfigSource]) -> Formats:
    """Return the compiled formats of SOURCES. Raises ConfigurationError with all faults.

    Settings of later sources override those of earlier ones one by one; lists of keys are prepended.
    """
    read = _Read()
    for source in sources:
        _read_source(source, read)
    formats = _compile_formats(read)
    mentions = {name: _compile_mention(name, entry, read) for name, entry in read.mentions.items()}
    if read.faults:
        raise ConfigurationError(sorted(read.faults, key=lambda fault: (fault.file, fault.line)))
    words = _words({**NAMES, **read.levels}, {})
    roles, ranks, nested = _roles(read.fields)
    compiled = [(entry, _format(name, entry, pattern, words)) for name, entry, pattern in formats]
    named = {service for _, form in compiled for service in form.services}
    return Formats(
        common=_table(compiled, ""),
        services={service: _table(compiled, service) for service in named},
        inside=tuple((entry["inside"].value, form) for entry, form in compiled if "inside" in entry and form.pattern),
        levels=words,
        roles=roles,
        ranks=ranks,
        nested=nested,
        trace=mentions.get("trace_id"),
        user=mentions.get("user_id"),
    )


def _read_source(source: ConfigSource, read: _Read) -> None:
    tables, lines = parse_toml(source, read.faults)
    for key, table in tables.items():
        if key not in _TABLES:
            sentence = f"is not a known table; known tables are {', '.join(_TABLES)}"
        elif not isinstance(table, dict):
            sentence = "must be a table"
        else:
            continue
        read.faults.append(Fault(source.file, lines.get((key,), 0), shown_key(key), sentence))

    def each(name: str, reader: Callable[[object], Any]) -> dict[str, Any]:
        table = tables.get(name)
        return _each(table, name, reader, source.file, lines, read.faults) if isinstance(table, dict) else {}

    read.pieces |= each("pieces", values.text)
    read.levels |= {word.lower(): level for word, level in each("levels", _level).items()}
    if isinstance(fields := tables.get("fields"), dict):
        found = SettingsReader(FIELD_SETTINGS).read(fields, ("fields",), source.file, lines, read.faults)
        for role, given in found.items():
            read.fields[role] = tuple(dict.fromkeys((*given.value, *read.fields.get(role, ()))))
    _entries(tables, "mentions", MENTION_SETTINGS, read.mentions, source.file, lines, read)
    _entries(tables, "formats", FORMAT_SETTINGS, read.formats, source.file, lines, read)


def _each(
    table: Mapping[str, Any],
    name: str,
    reader: Callable[[object], Any],
    file: str,
    lines: Lines,
    faults: list[Fault],
) -> dict[str, Any]:
    found = {}
    for key, value in table.items():
        try:
            found[key] = reader(value)
        except ValueError as problem:
            faults.append(Fault(file, line_of(lines, (name, key)), f"{name}.{shown_key(key)}", str(problem)))
    return found


def _entries(
    tables: Mapping[str, Any],
    group: str,
    settings: Sequence[Setting],
    into: dict[str, FormatTable],
    file: str,
    lines: Lines,
    read: _Read,
) -> None:
    named = tables.get(group)
    if not isinstance(named, dict):
        return
    reader = SettingsReader(settings)
    for name, table in named.items():
        line = line_of(lines, (group, name))
        where = f"{group}.{shown_key(name)}"
        if not isinstance(table, dict):
            read.faults.append(Fault(file, line, where, "must be a table"))
        elif group == "mentions" and name not in _MENTIONS:
            read.faults.append(Fault(file, line, where, f"is not one of {', '.join(_MENTIONS)}"))
        elif not _FORMAT_NAME.match(name):
            sentence = "a name is a lower-case letter followed by up to 49 of a-z, 0-9, '_' and '-'"
            read.faults.append(Fault(file, line, where, sentence))
        else:
            given = reader.read(table, (group, name), file, lines, read.faults)
            into.setdefault(name, {}).update(given)
            read.places[f"{group}.{name}"] = Given(None, file, line)


def _value(entry: FormatTable, key: str, otherwise: Any) -> Any:
    return entry[key].value if key in entry else otherwise


def _compile_formats(read: _Read) -> list[tuple[str, FormatTable, re.Pattern[str] | None]]:
    """Return the formats in use, in the order in which they are tried."""
    found = []
    for name, entry in read.formats.items():
        where = f"formats.{name}"
        place = read.places[where]
        kind = _value(entry, "kind", "pattern")
        if kind == "pattern" and "pattern" not in entry:
            given = {fault.where for fault in read.faults}
            if f"{where}.pattern" not in given and f"{where}.kind" not in given:
                sentence = "has no pattern, and there is no format of this name to change"
                read.faults.append(Fault(place.file, place.line, where, sentence))
            continue
        if not _value(entry, "enabled", True):
            continue
        pattern = _compiled(entry["pattern"], f"{where}.pattern", read) if kind == "pattern" else None
        if pattern is not None:
            for group in set(_value(entry, "numbers", ())) - set(pattern.groupindex):
                numbers = entry["numbers"]
                sentence = f"the pattern has no group {shown_key(group)!r}"
                read.faults.append(Fault(numbers.file, numbers.line, f"{where}.numbers", sentence))
        found.append((name, entry, pattern))
    return sorted(found, key=lambda item: _value(item[1], "order", 50))


def _compiled(given: Given, where: str, read: _Read) -> re.Pattern[str] | None:
    def fault(sentence: str) -> None:
        read.faults.append(Fault(given.file, given.line, where, sentence))

    def piece(found: re.Match[str]) -> str:
        if found[1] not in read.pieces:
            fault(f"there is no piece {shown_key(found[1])!r}; an '@' that is one is written [@]")
        return read.pieces.get(found[1], "")

    try:
        return re.compile(_PIECE.sub(piece, given.value))
    except (re.error, OverflowError) as problem:
        fault(f"is not a valid regular expression ({shown_key(str(problem))})")
    except RecursionError:
        fault("is nested too deeply")
    return None


def _compile_mention(name: str, entry: FormatTable, read: _Read) -> Mention | None:
    if "pattern" not in entry or not _value(entry, "words", ()):
        return None
    where = f"mentions.{name}.pattern"
    pattern = _compiled(entry["pattern"], where, read)
    if pattern is not None and "id" not in pattern.groupindex:
        read.faults.append(Fault(entry["pattern"].file, entry["pattern"].line, where, "has no group 'id'"))
        return None
    words = entry["words"].value
    read_id = trace_id_in if name == "trace_id" else given_id
    if pattern is None:
        return None
    prefixes = tuple(dict.fromkeys(word[:_PREFIX_LENGTH] for word in words))
    return Mention(words, pattern, _common_substring(words), prefixes, read_id)


def _common_substring(words: Sequence[str]) -> str:
    """Return the longest common substring of WORDS."""
    least = min(words, key=len)
    pieces = (least[at : at + size] for size in range(len(least), 0, -1) for at in range(len(least) - size + 1))
    return next((piece for piece in pieces if all(piece in word for word in words)), "")


def _words(levels: Mapping[str, str], common: LevelWords) -> LevelWords:
    """Return the names of LEVELS in their usual cases, and COMMON ones, which LEVELS override."""
    words = dict(common)
    for word, level in levels.items():
        known = level, level.lower().startswith(word.lower())
        words |= dict.fromkeys((word, word.lower(), word.upper(), word.title()), known)
    return words


def _format(name: str, entry: FormatTable, pattern: re.Pattern[str] | None, words: LevelWords) -> TextFormat:
    groups: Mapping[int, str] = {} if pattern is None else {n: group for group, n in pattern.groupindex.items()}
    own = _value(entry, "levels", {})
    return TextFormat(
        name=name,
        kind=_value(entry, "kind", "pattern"),
        pattern=pattern,
        groups=tuple(groups.get(n, "") for n in range(1, (pattern.groups if pattern else 0) + 1)),
        level=_value(entry, "level", None),
        levels=_words(own, words) if own else None,
        numbers=_value(entry, "numbers", ()),
        services=_value(entry, "services", ()),
        again=_value(entry, "again", False),
        complete=_value(entry, "complete", False),
        late=_value(entry, "order", 50) >= LATE,
        needle="=" if _value(entry, "kind", "pattern") == "logfmt" else needle_of(pattern) if pattern else "",
    )


def _table(compiled: Sequence[tuple[FormatTable, TextFormat]], service: str) -> Table:
    mine = [
        (_value(entry, "first", ""), form) for entry, form in compiled if not form.services or service in form.services
    ]
    table = {
        character: tuple(form for first, form in mine if not first or character in first)
        for character in {character for first, _ in mine for character in first}
    }
    return table | {"": tuple(form for first, form in mine if not first)}


def _roles(
    fields: Mapping[str, tuple[str, ...]],
) -> tuple[dict[str, str], dict[str, int], dict[str, dict[str, str]]]:
    roles: dict[str, str] = {}
    ranks: dict[str, int] = {}
    nested: dict[str, dict[str, str]] = {}
    for role, keys in fields.items():
        for rank, key in enumerate(keys):
            if role != "nested":
                roles.setdefault(key, role)
                ranks.setdefault(key, rank)
    for key, role in list(roles.items()):
        # Keys of one or two letters mean too many things to be taken in any case.
        if len(short := folded(key)) > 2:
            roles.setdefault(short, role)
            ranks.setdefault(short, ranks[key])
    plain = {key: role for key, role in roles.items() if "." not in key}
    for key in fields.get("nested", ()):
        nested[key] = dict(plain)
    for key, role in roles.items():
        outer, dot, inner = key.partition(".")
        if dot:
            nested.setdefault(outer, {})[inner] = role
    for key in nested:
        roles.setdefault(key, "nested")
        ranks.setdefault(key, 0)
    return roles, ranks, nested
