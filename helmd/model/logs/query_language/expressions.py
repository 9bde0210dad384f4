"""Regular expressions of queries: rewritten so that Python and PostgreSQL find the same.

A dot takes line breaks too, as PostgreSQL has it, and Python with `FLAGS`; the end is the very end. What one of them
lacks, or reads in another way, is refused; classes such as ``\\d`` are those of ASCII. (PostgreSQL manual,
section 9.7.3.)
"""

import re
import warnings
from collections.abc import Iterable
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

FLAGS = re.IGNORECASE | re.DOTALL
"""With these, Python reads a `common_expression`."""
_REPEATS = 255
"""PostgreSQL's limit for a bound (RE_DUP_MAX)."""
_WORD, _SPACE = "A-Za-z0-9_", " \\t\\n\\r\\f\\v"
_SETS = {
    _constants.CATEGORY_DIGIT: "0-9",
    _constants.CATEGORY_SPACE: _SPACE,
    _constants.CATEGORY_WORD: _WORD,
}
_COMPLEMENTS = {
    _constants.CATEGORY_NOT_DIGIT: "[^0-9]",
    _constants.CATEGORY_NOT_SPACE: f"[^{_SPACE}]",
    _constants.CATEGORY_NOT_WORD: f"[^{_WORD}]",
}
_INSIDE = f"(?:(?<=[{_WORD}])(?=[{_WORD}])|(?<![{_WORD}])(?![{_WORD}]))"
_EDGE = f"(?:(?<=[{_WORD}])(?![{_WORD}])|(?<![{_WORD}])(?=[{_WORD}]))"
_PLACES = {
    _constants.AT_BEGINNING: "^",
    _constants.AT_BEGINNING_STRING: "^",
    _constants.AT_END: "(?!.)",
    _constants.AT_END_STRING: "(?!.)",
    _constants.AT_BOUNDARY: _EDGE,
    _constants.AT_NON_BOUNDARY: _INSIDE,
}
_ESCAPES = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\f": "\\f", "\v": "\\v"}


class UnsupportedExpressionError(ValueError):
    """The expression is invalid, or not supported; the message is for users."""


def common_expression(pattern: str) -> str:
    """Return PATTERN as both understand it, to be used without regard to case. Raises UnsupportedExpressionError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            parsed = _parser.parse(pattern, re.IGNORECASE)
        if parsed.state.flags & ~(re.IGNORECASE | re.UNICODE):
            raise UnsupportedExpressionError("flags such as (?s) are not supported")
        written = _sequence(parsed)
        # Python's compiler refuses what its parser does not, such as a lookbehind of no fixed width.
        re.compile(written, FLAGS)
    except UnsupportedExpressionError:
        raise
    except re.error as problem:
        raise UnsupportedExpressionError(str(problem)) from None
    except (OverflowError, RecursionError):
        raise UnsupportedExpressionError("it is too complicated") from None
    return written


def _sequence(parts: Iterable[tuple[Any, Any]]) -> str:
    return "".join(_part(operation, argument) for operation, argument in parts)


def _part(operation: Any, argument: Any) -> str:
    if operation is _constants.LITERAL:
        return _character(argument)
    if operation is _constants.ANY:
        return "."
    if operation is _constants.NOT_LITERAL:
        return f"[^{_character(argument)}]"
    if operation is _constants.IN:
        return _set(argument)
    if operation is _constants.AT:
        return _PLACES[argument]
    if operation is _constants.BRANCH:
        return "(?:" + "|".join(map(_sequence, argument[1])) + ")"
    if operation is _constants.SUBPATTERN:
        _group, added, removed, inner = argument
        if added or removed:
            raise UnsupportedExpressionError("flags such as (?s:…) are not supported")
        return f"(?:{_sequence(inner)})"
    if operation in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
        return _repeat(*argument)
    if operation in (_constants.ASSERT, _constants.ASSERT_NOT):
        return _assertion(operation, *argument)
    if operation is _constants.GROUPREF:
        raise UnsupportedExpressionError("back references are not supported")
    raise UnsupportedExpressionError("it uses syntax that is not supported")


def _repeat(least: int, most: Any, inner: Iterable[tuple[Any, Any]]) -> str:
    # Greedy or not makes no difference for whether there is a match.
    one = f"(?:{_sequence(inner)})"
    if most is _constants.MAXREPEAT:
        bounds = {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    else:
        bounds = "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"
    if least > _REPEATS or (most is not _constants.MAXREPEAT and most > _REPEATS):
        raise UnsupportedExpressionError(f"repetitions are limited to {_REPEATS}")
    return one + bounds


def _assertion(operation: Any, direction: int, inner: Iterable[tuple[Any, Any]]) -> str:
    sign = "=" if operation is _constants.ASSERT else "!"
    return f"(?{'<' if direction < 0 else ''}{sign}{_sequence(inner)})"


def _set(items: Iterable[tuple[Any, Any]]) -> str:
    negated, inside, complements = False, "", list[str]()
    for operation, argument in items:
        if operation is _constants.NEGATE:
            negated = True
        elif operation is _constants.LITERAL:
            inside += _character(argument)
        elif operation is _constants.RANGE:
            inside += f"{_character(argument[0])}-{_character(argument[1])}"
        elif argument in _SETS:
            inside += _SETS[argument]
        else:
            complements.append(_COMPLEMENTS[argument])
    if not complements:
        return f"[{'^' if negated else ''}{inside}]"
    # PostgreSQL before 14 knows no complement inside a set.
    choice = "|".join([*complements, *([f"[{inside}]"] if inside else [])])
    return f"(?:(?!{choice}).)" if negated else f"(?:{choice})"


def _character(code: int) -> str:
    text = chr(code)
    if not code or 0xD800 <= code <= 0xDFFF:
        raise UnsupportedExpressionError("it contains a NUL character or a lone surrogate")
    if text in _ESCAPES:
        return _ESCAPES[text]
    return "\\" + text if text.isascii() and not text.isalnum() and text not in "_ " else text
