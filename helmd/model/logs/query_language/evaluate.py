"""Whether a log entry meets a query. The store does the same in SQL (`helmd.store.logs.language`)."""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any as TypingAny

from helmd.model.logs.entry import LogRow
from helmd.model.logs.query_language.expressions import FLAGS
from helmd.model.logs.query_language.fields import NUMERIC
from helmd.model.logs.query_language.nodes import (
    All,
    Among,
    Any,
    ComparisonSign,
    Contains,
    ContextIs,
    ContextWild,
    Has,
    HasContext,
    Matches,
    Node,
    Not,
    NumberIs,
    Path,
    Term,
    TimeIs,
    Wild,
)

_COMPARE: Mapping[ComparisonSign, Callable[[TypingAny, TypingAny], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def meets(node: Node | None, row: LogRow, number: int | None = None) -> bool:
    """Return whether ROW, of which NUMBER is the id in the store, meets the query NODE."""
    match node:
        case None:
            return True
        case Not(of=inner):
            return not meets(inner, row, number)
        case All(of=parts):
            return all(meets(part, row, number) for part in parts)
        case Any(of=parts):
            return any(meets(part, row, number) for part in parts)
        case _:
            return _leaf(node, row, number)


def _leaf(leaf: Term, row: LogRow, number: int | None) -> bool:
    match leaf:
        case Among(column=column, values=values):
            return getattr(row, column) in values
        case Contains(text=text):
            return text.lower() in row.message.lower()
        case Matches(expression=expression):
            return _compiled(expression).search(row.message) is not None
        case Wild(column=column, parts=parts):
            text = getattr(row, column)
            return text is not None and wildcard_matches(parts, text)
        case NumberIs(column=column, comparison=comparison, value=value):
            given = number if column == "id" else row.process_id
            return given is not None and _COMPARE[comparison](given, value)
        case TimeIs(comparison=comparison, value=instant):
            return _COMPARE[comparison](row.timestamp, instant)
        case Has(column=column):
            return getattr(row, column) is not None
        case HasContext(path=path):
            return any(True for _ in _values(path, row.context))
        case ContextWild(path=path, parts=parts):
            return any(
                isinstance(value, str) and wildcard_matches(parts, value) for value in _values(path, row.context)
            )
        case ContextIs():
            return any(_compares(leaf, value) for value in _values(leaf.path, row.context))


def wildcard_matches(parts: tuple[str, ...], text: str) -> bool:
    """Return whether TEXT is PARTS in their order, with any text between each two."""
    if len(parts) == 1:
        return text == parts[0]
    first, *between, last = parts
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    place, end = len(first), len(text) - len(last)
    for part in between:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def _compares(wanted: ContextIs, value: object) -> bool:
    if wanted.number is not None and (number := _number(value)) is not None:
        return _COMPARE[wanted.comparison](number, wanted.number)
    if isinstance(value, bool):
        value = "true" if value else "false"
    return isinstance(value, str) and value == wanted.text


def _number(value: object) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else None
    return Decimal(value) if isinstance(value, str) and NUMERIC.match(value) else None


def _values(path: Path, context: Mapping[str, object] | None) -> Iterator[object]:
    """Yield the values at PATH that are not null: of its keys one inside the other, and of all of them joined as one
    key.
    """
    inner: object = context
    for key in path:
        inner = inner.get(key) if isinstance(inner, Mapping) else None
    if inner is not None:
        yield inner
    if len(path) > 1 and context is not None and (flat := context.get(".".join(path))) is not None:
        yield flat


@lru_cache(maxsize=256)
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, FLAGS)
