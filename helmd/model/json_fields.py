"""What a field of a JSON body means: metadata of dataclass fields, from which schema, parser and documents are derived.

A body of the API is a frozen dataclass whose fields say ``field(metadata=described(...))``.
`helmd.model.api.json_schema` makes its JSON Schema, `helmd.model.api.json_codec` its JSON and its parser.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass
from dataclasses import field as dataclass_field
from typing import Any

_KEY = "json"


@dataclass(frozen=True, slots=True)
class Description:
    """Of one field. ``limits`` are keywords of JSON Schema (minimum, maxLength, ...).

    ``omitted`` says that the member is left out of the JSON when the value is None.
    """

    meaning: str = ""
    example: object = None
    omitted: bool = False
    limits: Mapping[str, object] = dataclass_field(default_factory=dict)


def described(meaning: str, *, example: object = None, omitted: bool = False, **limits: object) -> Mapping[str, Any]:
    """Return metadata for `dataclasses.field`. LIMITS are keywords of JSON Schema."""
    return {_KEY: Description(meaning, example, omitted, limits)}


def description_of(field: "Field[Any]") -> Description:
    """Return what FIELD says of itself."""
    found: Description = field.metadata.get(_KEY, Description())
    return found
