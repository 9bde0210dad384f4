"""Parsing a query, which is hostile until parsed.

``codex timeout`` are texts that a message must both contain; ``"two words"`` is one; ``/regex/`` is a regular
expression; ``FIELD:VALUE``, ``FIELD>=VALUE`` and so on are about a field. ``-`` or ``NOT`` before a term negates it.
``OR`` stands between alternatives and binds less than what stands side by side; parentheses group.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from helmd.model.errors import UsageError
from helmd.model.logs.query_language.expressions import UnsupportedExpressionError, common_expression
from helmd.model.logs.query_language.fields import (
    CONTEXT_FIELD,
    FACET_COLUMNS,
    FIELD_COLUMNS,
    FIELD_NAMES,
    TermError,
    TermValue,
    context_term,
    known_field,
    term,
)
from helmd.model.logs.query_language.nodes import Contains, Matches, Node, Not, Path, all_of, any_of
from helmd.model.printable import printable

QUERY_LIMIT = 2000
"""Maximum length of a query in characters."""
_TERMS, _DEPTH = 64, 16
_FIELD = re.compile(r"([A-Za-z_]\w*)((?:\.(?:[\w-]+|\"(?:[^\"\\]|\\.)*\"))*)(:|!=|>=|<=|=|>|<)", re.ASCII)
_KEY = re.compile(r"\.(?:([\w-]+)|\"((?:[^\"\\]|\\.)*)\")", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_EXPRESSION = re.compile(r"/((?:[^/\\]|\\.)+)/(?=[\s)]|\Z)", re.DOTALL)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class QueryError(UsageError):
    """A query can't be parsed; ``position`` is the index of the character at which that is noticed."""

    def __init__(self, what: str, position: int, hint: str = "") -> None:
        super().__init__(f"query: {printable(what, 200)} (at character {position + 1})", hint=hint)
        self.position = position


@lru_cache(maxsize=256)
def parsed_query(text: str) -> Node | None:
    """Return the conditions of a query, or None if it is blank. Raises QueryError."""
    if len(text) > QUERY_LIMIT:
        raise QueryError(f"has {len(text):,} characters; at most {QUERY_LIMIT:,} are allowed", QUERY_LIMIT)
    if (bad := _UNSTORABLE.search(text)) is not None:
        raise QueryError("must not contain a NUL character or a lone surrogate", bad.start())
    return _Parser(text).whole()


@dataclass(slots=True)
class _Parser:
    """A recursive descent; ``place`` is where it is."""

    text: str
    place: int = 0
    terms: int = 0
    depth: int = 0

    def whole(self) -> Node | None:
        self._skip_space()
        if self.place == len(self.text):
            return None
        found = self._alternatives()
        if self.place < len(self.text):
            self._fail("there is a ) without a (", 'Put text with parentheses in quotes, as "f(x)".')
        return found

    def _alternatives(self) -> Node:
        found = [self._conjunction()]
        while self._word("OR"):
            found.append(self._conjunction())
        return any_of(tuple(found))

    def _conjunction(self) -> Node:
        found: list[Node] = []
        while True:
            while found and self._word("AND"):
                if self._at_end():
                    self._fail("a term is missing after AND")
            if self._at_end():
                break
            found.append(self._negatable())
        node = all_of(tuple(found))
        if node is None:
            self._fail("a term is missing here", 'Put the words OR, AND and NOT in quotes to search for them: "OR".')
        return node

    def _at_end(self) -> bool:
        self._skip_space()
        return self.place == len(self.text) or self.text[self.place] == ")" or self._next_is("OR")

    def _negatable(self) -> Node:
        self.depth += 1
        if self.depth > _DEPTH:
            self._fail(f"is nested more than {_DEPTH} deep")
        begun = self.place
        if self._word("NOT") or self._sign():
            if self._at_end():
                self._fail("there is nothing here to exclude", 'To search for a "-", put it in quotes.', begun)
            node: Node = Not(self._negatable())
        elif self.text[self.place] == "(":
            self.place += 1
            node = self._alternatives()
            if self.text[self.place : self.place + 1] != ")":
                self._fail("a ( is not closed", 'Put text with parentheses in quotes, as "f(x)".', begun)
            self.place += 1
        else:
            node = self._term()
        self.depth -= 1
        return node

    def _sign(self) -> bool:
        if self.text[self.place] == "-" and not self.text[self.place + 1 : self.place + 2].isspace():
            self.place += 1
            return True
        return False

    def _term(self) -> Node:
        self.terms += 1
        if self.terms > _TERMS:
            self._fail(f"has more than {_TERMS} terms")
        begun = self.place
        if (found := _EXPRESSION.match(self.text, begun)) is not None:
            self.place = found.end()
            return self._expression(found[1].replace("\\/", "/"), begun)
        if (field := _FIELD.match(self.text, begun)) is not None:
            return self._about_field(field)
        value = self._value()
        if not value.text:
            self._fail("an empty text is in every message", position=begun)
        return Contains(value.text)

    def _expression(self, pattern: str, begun: int) -> Node:
        try:
            return Matches(common_expression(pattern))
        except UnsupportedExpressionError as problem:
            self._fail(f"the regular expression can't be used: {problem}", position=begun)

    def _about_field(self, field: re.Match[str]) -> Node:
        begun, (given, keys, operator) = self.place, field.groups()
        name = given.lower()
        try:
            if name == CONTEXT_FIELD and not keys:
                raise TermError("a key is missing", "For example context.status>=500.")
            if keys and name != CONTEXT_FIELD:
                raise TermError(f"there is no field {given}{keys}", f"Is it context.{given}{keys}?")
            if name != CONTEXT_FIELD and not known_field(name):
                quoted = f'To search for the text, put it in quotes: "{printable(given, 40)}{operator}…"'
                raise TermError(
                    f"there is no field {given!r}", f"{quoted}. Fields: {', '.join(FIELD_NAMES)}, context.KEY."
                )
            self.place = field.end()
            if name == "message" and (found := _EXPRESSION.match(self.text, self.place)) is not None:
                self.place = found.end()
                return self._expression(found[1].replace("\\/", "/"), begun)
            value = self._value()
            return context_term(_path(keys), operator, value) if name == CONTEXT_FIELD else term(name, operator, value)
        except TermError as problem:
            self._fail(str(problem), problem.hint, begun)

    def _value(self) -> TermValue:
        """Return a quoted text, or what there is up to the next white space or parenthesis that closes a group."""
        if self.text[self.place : self.place + 1] == '"':
            quoted = _QUOTED.match(self.text, self.place)
            if quoted is None:
                self._fail("a quote is not closed", 'A quote inside quotes is written \\".')
            self.place = quoted.end()
            rest = self.text[self.place : self.place + 1]
            if rest and not rest.isspace() and rest != ")":
                self._fail("white space is missing after a quoted text")
            return TermValue(_parts(quoted[1]), quoted=True)
        begun, opened = self.place, 0
        while self.place < len(self.text):
            character = self.text[self.place]
            if character.isspace() or (character == ")" and not opened):
                break
            opened += (character == "(") - (character == ")")
            self.place += 1
        return TermValue(tuple(self.text[begun : self.place].split("*")))

    def _word(self, word: str) -> bool:
        if self._next_is(word):
            self.place += len(word)
            self._skip_space()
            return True
        return False

    def _next_is(self, word: str) -> bool:
        self._skip_space()
        end = self.place + len(word)
        following = self.text[end : end + 1]
        return self.text.startswith(word, self.place) and (not following or following.isspace() or following in "()")

    def _skip_space(self) -> None:
        while self.place < len(self.text) and self.text[self.place].isspace():
            self.place += 1

    def _fail(self, what: str, hint: str = "", position: int | None = None) -> NoReturn:
        raise QueryError(what, self.place if position is None else position, hint)


def facet_subject(name: str) -> str:
    """Return the column, ``context.KEY`` or ``context`` whose values NAME asks for. Raises UsageError."""
    if name == CONTEXT_FIELD:
        return name
    field = _FIELD.fullmatch(f"{name}:")
    if field is not None and field[1] == CONTEXT_FIELD and field[2]:
        try:
            return f"{CONTEXT_FIELD}." + ".".join(_path(field[2]))
        except TermError as problem:
            raise UsageError(f"field: {problem}") from None
    column = FIELD_COLUMNS.get(name, "")
    if column not in FACET_COLUMNS:
        raise UsageError(
            f"field: {printable(name, 60)!r} has no values to list",
            hint="For example service, level, source, stream, host, user, context, context.KEY.",
        )
    return column


def check_column(name: str) -> None:
    """Raise UsageError unless a log view can have a column NAME."""
    if name not in FIELD_COLUMNS:
        facet_subject(name)


def _parts(inside: str) -> tuple[str, ...]:
    """Return the texts between the asterisks of a quoted text, where ``\\*`` is one of the text."""
    parts, begun, last = list[str](), "", 0
    for found in re.finditer(r"\\(.)|\*", inside, re.DOTALL):
        begun += inside[last : found.start()]
        last = found.end()
        if found[1] is None:
            parts.append(begun)
            begun = ""
        else:
            begun += found[1]
    return (*parts, begun + inside[last:])


def _path(keys: str) -> Path:
    """Return the keys after ``context``; a quoted one may have any characters."""
    found: list[str] = []
    for key in _KEY.finditer(keys):
        found.append(key[1] if key[1] is not None else _ESCAPED.sub(r"\1", key[2]))
    if not all(found):
        raise TermError("a key is empty")
    return tuple(found)
