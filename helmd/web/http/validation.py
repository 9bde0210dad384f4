"""Request bodies as dataclasses, validated against the schema of their class (JSON Schema 2020-12)."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import web
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from helmd.model.api.json_codec import from_json
from helmd.model.api.json_schema import document_for
from helmd.model.errors import UsageError
from helmd.model.field_error import FieldError
from helmd.model.printable import printable
from helmd.web.http.body import receive_body
from helmd.web.http.problems import RequestRefusedError

BODY_LIMIT = 64 << 10
"""Maximum size of a body in bytes, except for ingestion."""
_JSON = "application/json"
_MOST_ERRORS = 20

Kind = TypeVar("Kind")


async def read_request(request: web.Request, kind: type[Kind], limit: int = BODY_LIMIT) -> Kind:
    """Return the body of REQUEST, of at most LIMIT bytes, as a KIND; for an empty one, with all defaults.

    Raises UsageError with the faults, and RequestRefusedError for another media type (415) and as `receive_body`.
    """
    if request.can_read_body and request.content_type != _JSON:
        raise RequestRefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media_type", f"the body must be {_JSON}", {"Accept": _JSON}
        )
    return parse_request(await receive_body(request, limit), kind)


def parse_request(body: bytes, kind: type[Kind]) -> Kind:
    """Return BODY as a KIND. Raises UsageError with the faults in it."""
    try:
        document = json.loads(body or b"{}", parse_constant=_no_constant)
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Neither files nor PostgreSQL can store it (RFC 8259, section 8.2).
        raise _not_json("the body has a text with half of a surrogate pair") from None
    except (ValueError, RecursionError):
        raise _not_json("the body is not JSON") from None
    errors = list(faults_in(document, kind))
    if errors:
        first = errors[0]
        where = first.pointer.removeprefix("#/").replace("/", ".")
        raise UsageError(f"{where}: {first.detail}" if where != "#" else first.detail, errors=errors)
    return from_json(kind, document)


def _not_json(sentence: str) -> UsageError:
    return UsageError(sentence, errors=[FieldError("#", sentence, "json")])


def faults_in(document: Any, kind: type) -> Iterator[FieldError]:
    """Yield what of DOCUMENT does not fit the schema of KIND, at most _MOST_ERRORS."""
    found = sorted(_validator(kind).iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
    for error in found[:_MOST_ERRORS]:
        yield FieldError(_pointer(error), _sentence(error), str(error.validator))


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Validate the keyword ``pattern``, in which $ only matches at the end of the text (ECMA-262)."""
    wanted = pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern
    if validator.is_type(instance, "string") and not re.search(wanted, instance):
        yield ValidationError("does not match")


def _is_time(instance: object) -> bool:
    """Check the format ``date-time``, for which jsonschema needs another library.

    Raises ValueError.
    """
    return not isinstance(instance, str) or bool(datetime.fromisoformat(instance))


_FORMATS = FormatChecker(())
_FORMATS.checks("date-time", raises=ValueError)(_is_time)
_Validator = extend(Draft202012Validator, {"pattern": _pattern})


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@cache
def _validator(kind: type) -> Any:
    return _Validator(document_for(kind), format_checker=_FORMATS)


def _pointer(error: ValidationError) -> str:
    """Return the JSON pointer of the fault, including the member that is missing or unknown."""
    path = [*error.absolute_path]
    if (name := _member(error)) is not None:
        path.append(name)
    return "#" + "".join(f"/{str(each).replace('~', '~0').replace('/', '~1')}" for each in path)


def _member(error: ValidationError) -> str | None:
    if error.validator == "required":
        return next((name for name in error.validator_value if name not in error.instance), None)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        return next((name for name in error.instance if name not in known), None)
    return None


def _sentence(error: ValidationError) -> str:
    """Return the message without the value, which may be long or secret."""
    wanted = error.validator_value
    match error.validator:
        case "required":
            return "is missing"
        case "additionalProperties":
            return "is not known here"
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            return f"must be {' or '.join(map(str, kinds))}"
        case "enum":
            return f"must be one of {', '.join(map(str, wanted))}"
        case "minimum" | "exclusiveMinimum":
            return f"must be at least {wanted}"
        case "maximum":
            return f"must be at most {wanted}"
        case "minLength" | "minItems" | "minProperties":
            return f"must have at least {wanted}"
        case "maxLength" | "maxItems" | "maxProperties":
            return f"must have at most {wanted}"
        case "pattern":
            return f"must match {wanted}"
        case "format":
            return f"must be a {wanted}"
    return printable(f"does not meet {error.validator}", 100)
