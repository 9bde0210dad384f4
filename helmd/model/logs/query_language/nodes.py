"""What a query is parsed to: conditions on one log entry, and how they are combined.

A condition on a column that an entry lacks is not met, so its negation is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

ComparisonSign = Literal["=", "<", "<=", ">", ">="]
TextColumn = Literal[
    "service_name", "level", "source", "stream", "trace_id", "user_id", "hostname", "unit", "boot_id", "message"
]
NumberColumn = Literal["id", "process_id"]
Path = tuple[str, ...]
"""Keys of a value inside an entry's context. ``a.b`` is the value of the key ``a.b``, and that of ``b`` in ``a``."""


@dataclass(frozen=True, slots=True)
class Among:
    """The column has one of the values, exactly."""

    column: TextColumn
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wild:
    """The column's whole text is ``parts`` in this order with any text, or none, between each two. Case matters."""

    column: TextColumn
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contains:
    """The message contains the text; case does not matter."""

    text: str


@dataclass(frozen=True, slots=True)
class Matches:
    """The message matches a regular expression (`expressions.common_expression`); case does not matter."""

    expression: str


@dataclass(frozen=True, slots=True)
class NumberIs:
    """The column compares with the value so."""

    column: NumberColumn
    comparison: ComparisonSign
    value: int


@dataclass(frozen=True, slots=True)
class TimeIs:
    """The entry's timestamp compares with the value so."""

    comparison: ComparisonSign
    value: datetime


@dataclass(frozen=True, slots=True)
class ContextIs:
    """A value in the context is the text, or compares with the number so.

    A string compares as a number where it is written as one.
    """

    path: Path
    comparison: ComparisonSign
    text: str | None
    """None where it is compared as a number only."""
    number: Decimal | None


@dataclass(frozen=True, slots=True)
class ContextWild:
    """A string in the context is ``parts`` in this order, as in `Wild`."""

    path: Path
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Has:
    """The entry has the column."""

    column: TextColumn | Literal["process_id", "context"]


@dataclass(frozen=True, slots=True)
class HasContext:
    """There is a value in the context, and not null."""

    path: Path


@dataclass(frozen=True, slots=True)
class Not:
    """The condition is not met."""

    of: "Node"


@dataclass(frozen=True, slots=True)
class All:
    """Each condition is met."""

    of: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Any:
    """One of the conditions is met, or more."""

    of: "tuple[Node, ...]"


Term = Among | Wild | Contains | Matches | NumberIs | TimeIs | ContextIs | ContextWild | Has | HasContext
Node = Term | Not | All | Any


def all_of(nodes: "tuple[Node, ...]") -> Node | None:
    """Return the condition that all of NODES are met, or None if there are none."""
    return All(nodes) if len(nodes) > 1 else nodes[0] if nodes else None


def any_of(nodes: "tuple[Node, ...]") -> Node:
    """Return the condition that one of NODES is met, of which there is one at least."""
    return Any(nodes) if len(nodes) > 1 else nodes[0]


def conjuncts(node: Node | None) -> tuple[Node, ...]:
    """Return the conditions that must each be met."""
    if isinstance(node, All):
        return tuple(each for part in node.of for each in conjuncts(part))
    return () if node is None else (node,)


def terms_in(node: Node | None) -> Iterator[Term]:
    """Yield the single conditions in NODE, negated ones too."""
    match node:
        case None:
            return
        case Not(of=inner):
            yield from terms_in(inner)
        case All(of=parts) | Any(of=parts):
            for part in parts:
                yield from terms_in(part)
        case _:
            yield node


def subject(leaf: Term) -> str:
    """Return what a single condition is about: a column, or ``context.KEY``."""
    match leaf:
        case Contains() | Matches():
            return "message"
        case TimeIs():
            return "timestamp"
        case ContextIs(path=path) | ContextWild(path=path) | HasContext(path=path):
            return "context." + ".".join(path)
        case _:
            return leaf.column
