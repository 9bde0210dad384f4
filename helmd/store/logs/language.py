"""Conditions of the query language in SQL, as `helmd.model.logs.query_language.evaluate` has them in Python."""

from collections.abc import Mapping
from typing import LiteralString

from psycopg import sql

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
from helmd.store.logs.columns import value_of

NodeCondition = tuple[sql.Composable, list[object]]
"""SQL that is true, false or null, which counts as false; and its parameters."""

_OPERATORS: Mapping[ComparisonSign, LiteralString] = {"=": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_NUMBER = r"^[+-]?[0-9]{1,30}([.][0-9]{1,30})?$"
"""As `helmd.model.logs.query_language.fields.NUMERIC`."""


def node_condition(node: Node) -> NodeCondition:
    """Return the condition that a row of ``log_entries`` meets NODE."""
    match node:
        case Not(of=Not(of=inner)):
            return node_condition(inner)
        case Not(of=inner):
            # Null, for a column that the entry lacks, is not met.
            met, given = node_condition(inner)
            return sql.SQL("({}) IS NOT TRUE").format(met), given
        case All(of=parts):
            return _joined(" AND ", parts)
        case Any(of=parts):
            return _joined(" OR ", parts)
        case _:
            return _leaf(node)


def like_pattern(text: str) -> str:
    """Return TEXT for LIKE, where it stands for itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def like_parts(parts: tuple[str, ...]) -> str:
    """Return PARTS for LIKE, with any text between each two."""
    return "%".join(map(like_pattern, parts))


def context_value(path: Path) -> NodeCondition:
    """Return the value at PATH in the context as jsonb."""
    return sql.SQL("(context{})").format(sql.SQL(" -> %s::text" * len(path))), list(path)


def _joined(operator: LiteralString, parts: tuple[Node, ...]) -> NodeCondition:
    found = [node_condition(part) for part in parts]
    joined = sql.SQL(operator).join(sql.SQL("({})").format(met) for met, _ in found)
    return joined, [value for _, given in found for value in given]


def _leaf(leaf: Term) -> NodeCondition:
    match leaf:
        case Among(column=column, values=values):
            return _among(column, values)
        case Contains(text=text):
            return sql.SQL("message ILIKE %s"), [f"%{like_pattern(text)}%"]
        case Matches(expression=expression):
            return sql.SQL("message ~* %s"), [expression]
        case Wild(column=column, parts=parts):
            return sql.SQL("{} LIKE %s").format(value_of(column)), [like_parts(parts)]
        case NumberIs(column=column, comparison=comparison, value=value):
            return sql.SQL("{} {} %s").format(sql.Identifier(column), _operator(comparison)), [value]
        case TimeIs(comparison=comparison, value=instant):
            return sql.SQL("timestamp {} %s").format(_operator(comparison)), [instant]
        case Has(column=column):
            return sql.SQL("{} IS NOT NULL").format(sql.Identifier(column)), []
        case _:
            return _in_context(leaf)


def _in_context(leaf: ContextIs | ContextWild | HasContext) -> NodeCondition:
    """Of the value at the path, or of the one whose key is the whole path."""
    paths = [leaf.path] if len(leaf.path) == 1 else [leaf.path, (".".join(leaf.path),)]
    found = [_of_value(leaf, *context_value(path)) for path in paths]
    return sql.SQL(" OR ").join(met for met, _ in found), [value for _, given in found for value in given]


def _of_value(leaf: ContextIs | ContextWild | HasContext, value: sql.Composable, path: list[object]) -> NodeCondition:
    if isinstance(leaf, HasContext):
        return sql.SQL("jsonb_typeof({}) <> 'null'").format(value), path
    text = sql.SQL("({} #>> '{{}}')").format(value)
    if isinstance(leaf, ContextWild):
        met = sql.SQL("(jsonb_typeof({}) = 'string' AND {} LIKE %s)").format(value, text)
        return met, [*path, *path, like_parts(leaf.parts)]
    if leaf.number is None:
        return sql.SQL("(jsonb_typeof({}) IN ('string', 'boolean') AND {} = %s)").format(value, text), [
            *path,
            *path,
            leaf.text,
        ]
    # CASE, since AND does not say what is evaluated first, and the cast fails for other text.
    met = sql.SQL(
        "CASE WHEN jsonb_typeof({value}) = 'number' OR (jsonb_typeof({value}) = 'string' AND {text} ~ %s)"
        " THEN {text}::numeric {operator} %s::numeric END"
    ).format(value=value, text=text, operator=_operator(leaf.comparison))
    return met, [*path, *path, *path, _NUMBER, *path, leaf.number]


def _among(column: str, values: frozenset[str]) -> NodeCondition:
    return sql.SQL("{} = ANY(%s::text[])").format(value_of(column)), [sorted(values)]


def _operator(comparison: ComparisonSign) -> sql.SQL:
    return sql.SQL(_OPERATORS[comparison])
