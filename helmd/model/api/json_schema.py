"""JSON Schema (draft 2020-12) of types: dataclasses with `described` fields, and the types of these."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import Enum
from inspect import cleandoc
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from helmd.model.json_fields import description_of

Schema = dict[str, Any]

_SIMPLE: Mapping[object, Mapping[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    datetime: {"type": "string", "format": "date-time"},
    type(None): {"type": "null"},
    Any: {},
    object: {},
}
_LISTS = (tuple, list, frozenset, Sequence)
COMPONENTS = "#/components/schemas/"


class Schemas:
    """Makes schemas; those of dataclasses are in ``components`` by the class' name and referred to."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._classes: dict[str, type] = {}

    def of(self, kind: Any, *, closed: bool = False) -> Schema:
        """Return the schema of a type.

        With CLOSED, as for requests, unknown members of its objects are refused, except of classes with a true
        attribute ``OPEN``. Raises TypeError for a type that has no JSON, ValueError for two classes of one name.
        """
        origin, arguments = get_origin(kind), get_args(kind)
        if kind in _SIMPLE:
            return dict(_SIMPLE[kind])
        if isinstance(kind, type) and is_dataclass(kind):
            return self._reference(kind, closed)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"type": "string", "enum": [member.value for member in kind]}
        if origin is Literal:
            return {"type": "string", "enum": list(arguments)}
        if origin in (Union, types.UnionType):
            return self._union(arguments, closed)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            values = self.of(arguments[1], closed=closed)
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        if origin in _LISTS:
            return {"type": "array", "items": self.of(arguments[0], closed=closed)}
        raise TypeError(f"{kind!r} has no JSON Schema")

    def _reference(self, kind: type, closed: bool) -> Schema:
        name = kind.__name__
        if self._classes.setdefault(name, kind) is not kind:
            raise ValueError(f"two classes of the API are called {name}")
        if name not in self.components:
            self.components[name] = {}  # of a class that refers to itself
            self.components[name] = self._object(kind, closed)
        return {"$ref": COMPONENTS + name}

    def _object(self, kind: type, closed: bool) -> Schema:
        hints = get_type_hints(kind)
        properties: dict[str, Schema] = {}
        required = []
        for field in fields(kind):
            description = description_of(field)
            own = self.of(_without_none(hints[field.name]) if description.omitted else hints[field.name], closed=closed)
            own |= description.limits
            if description.meaning:
                own["description"] = description.meaning
            if description.example is not None:
                own["examples"] = [description.example]
            has_default = field.default is not MISSING or field.default_factory is not MISSING
            if not (description.omitted or (closed and has_default)):
                required.append(field.name)
            elif closed and field.default not in (MISSING, None):
                own["default"] = field.default
            properties[field.name] = own
        made: Schema = {"type": "object", "description": cleandoc(kind.__doc__ or "").partition("\n\n")[0]}
        made["properties"] = properties
        if required:
            made["required"] = required
        if closed and not getattr(kind, "OPEN", False):
            made["additionalProperties"] = False
        return made

    def _union(self, kinds: Sequence[Any], closed: bool) -> Schema:
        parts = [self.of(kind, closed=closed) for kind in kinds]
        null = {"type": "null"}
        if null in parts and len(parts) == 2:
            other = next(part for part in parts if part != null)
            if not other:
                return {}
            if isinstance(other.get("type"), str):
                more = {"enum": [*other["enum"], None]} if "enum" in other else {}
                return {**other, "type": [other["type"], "null"], **more}
        return {"anyOf": parts}


def _without_none(kind: Any) -> Any:
    """Return the type without ``None``."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    rest = tuple(each for each in get_args(kind) if each is not type(None))
    return Union[rest]  # noqa: UP007 - of a tuple


def document_for(kind: Any) -> Schema:
    """Return a schema of a request's body that needs no other document, for a validator."""
    schemas = Schemas()
    return {**schemas.of(kind, closed=True), "components": {"schemas": schemas.components}}
