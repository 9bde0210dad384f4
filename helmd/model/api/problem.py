"""The problem document (RFC 9457) with which every error is answered."""

from dataclasses import dataclass, field

from helmd.model.field_error import FieldError
from helmd.model.json_fields import described

PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, for people and programs. Programs should compare ``code``, never ``detail``."""

    type: str = field(
        metadata=described("a page about this code", example="/docs/problems/unknown_service", format="uri-reference")
    )
    title: str = field(metadata=described("the name of the HTTP status", example="Not Found"))
    status: int = field(metadata=described("the HTTP status", example=404, minimum=400, maximum=599))
    detail: str = field(metadata=described("what happened, as a sentence", example="there is no service 'nosuch'"))
    instance: str = field(
        metadata=described("the path of the request; empty where it could not be read", example="/api/services/nosuch")
    )
    code: str = field(metadata=described("what happened, for programs", example="unknown_service"))
    error: str = field(metadata=described("the same as detail, for older clients"))
    hint: str | None = field(default=None, metadata=described("what to do next", omitted=True))
    lines: tuple[str, ...] | None = field(
        default=None, metadata=described("log lines that belong to the failure", omitted=True)
    )
    faults: tuple[str, ...] | None = field(
        default=None, metadata=described("the faults of a configuration, with file and line", omitted=True)
    )
    errors: tuple[FieldError, ...] | None = field(
        default=None, metadata=described("the faults of the request's body, each with its place", omitted=True)
    )
    success: bool | None = field(
        default=None, metadata=described("false where a start or stop failed, for older clients", omitted=True)
    )
    message: str | None = field(
        default=None, metadata=described("the same as detail where a start or stop failed", omitted=True)
    )
    job: str | None = field(default=None, metadata=described("the id of the job that failed", omitted=True))
    correlation_id: str | None = field(
        default=None, metadata=described("the id under which helmd logged an internal error", omitted=True)
    )
