"""A fault in a request's body, of which an error and its problem document have one or more."""

from dataclasses import dataclass, field

from helmd.model.json_fields import described


@dataclass(frozen=True, slots=True)
class FieldError:
    """A fault in one place of a request's body."""

    pointer: str = field(
        metadata=described(
            "where it is: a JSON pointer as a URI fragment (RFC 6901, section 6); # is the whole body",
            example="#/logs/3/level",
        )
    )
    detail: str = field(metadata=described("what is wrong", example="must be an object, not null"))
    code: str = field(
        metadata=described(
            "the same for programs: the keyword of JSON Schema that is not met, or json for what is not JSON",
            example="type",
        )
    )
