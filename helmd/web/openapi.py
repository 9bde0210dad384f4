"""The OpenAPI document (version 3.1): derived from the route table and the dataclasses of bodies and parameters.

A parameter that is empty counts as absent, so the schema of each allows that.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from http import HTTPStatus
from typing import Any, get_type_hints

from helmd import __version__
from helmd.model.api.json_schema import Schemas
from helmd.model.api.problem import PROBLEM_TYPE, Problem
from helmd.model.json_fields import description_of
from helmd.web.auth.roles import Role
from helmd.web.http.problems import CORRELATION, PREFIX
from helmd.web.reply import Reply
from helmd.web.route import Route

OPENAPI_VERSION = "3.1.0"
_JSON = "application/json"
_TEMPLATE = re.compile(r"\{(\w+)(?::((?:[^{}]|\{[^{}]*\})*))?\}")
_NO_NUL = r"^[^\u0000]*$"
"""`check_request` refuses NUL in all parameters."""
_PARAMETERS: Mapping[str, tuple[str, str | None]] = {
    "name": ("the name of a service", "core"),
    "id": ("its id", None),
    "code": ("the code of a problem", "unknown_service"),
}
"""Path parameters: description and example."""
_CALLERS: Mapping[Role, str] = {
    Role.PUBLIC: "Anybody, without a credential.",
    Role.CLIENT: "Any user.",
    Role.BILLING: "Users with role billing (confined to their services), technician or admin.",
    Role.TECHNICIAN: "Users with role technician or admin.",
    Role.ADMIN: "Users with role admin.",
}


def template(path: str) -> str:
    """Return the path of a route as OpenAPI writes it, without patterns."""
    return _TEMPLATE.sub(r"{\1}", path)


def openapi(table: Sequence[Route]) -> dict[str, Any]:
    """Return the document of TABLE."""
    schemas = Schemas()
    problem = {"$ref": "#/components/responses/Problem"}
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(template(route.path), {})[route.method.lower()] = _operation(route, schemas, problem)
    described_problem = {PROBLEM_TYPE: {"schema": schemas.of(Problem)}}
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "HiveMatrix Helm",
            "version": __version__,
            "description": "Health, logs and metrics of the services of a HiveMatrix suite. Fields may be added;"
            " clients must ignore those they do not know.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}, {"url": PREFIX}],
        "tags": [{"name": tag, "description": f"Routes of {tag}."} for tag in sorted({_tag(each) for each in table})],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "responses": {
                "Problem": {
                    "description": "What went wrong (RFC 9457).",
                    "headers": {CORRELATION: _CORRELATION_HEADER},
                    "content": described_problem,
                }
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of Core. On the machine itself, the unix socket needs none.",
                }
            },
        },
    }


_CORRELATION_HEADER = {
    "description": "The id of the request, its own or a new one; helmd's log has it.",
    "schema": {"type": "string"},
}


_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The ETag of the state that the change is meant for; * for any.",
    "schema": {"type": "string", "minLength": 1, "examples": ["*"]},
}


def _tag(route: Route) -> str:
    words = route.path.strip("/").split("/")
    return words[1] if words[0] == "api" and len(words) > 1 else words[0]


def _operation(route: Route, schemas: Schemas, problem: Mapping[str, Any]) -> dict[str, Any]:
    also = [name for name, marked in (("services", route.services), ("anonymous", route.anonymous)) if marked]
    made: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *re.findall(r"\w+", template(route.path))]),
        "summary": route.summary,
        "description": " ".join(
            [
                _CALLERS[route.role],
                *(["Services, with tokens of their own."] if route.services else []),
                *(["Programs of this machine without a token, where ingest.anonymous allows it."] if also[1:] else []),
            ]
        ),
        "tags": [_tag(route)],
        "x-role": route.role.value,
        "security": [] if route.role is Role.PUBLIC else [{"bearer": []}, *([{}] if route.anonymous else [])],
        "responses": _responses(route.reply or Reply(), schemas, problem),
    }
    headers = [_IF_MATCH] if route.conditional else []
    if parameters := [*_path_parameters(route.path), *_query_parameters(route.query, schemas), *headers]:
        made["parameters"] = parameters
    if route.request is not None:
        made["requestBody"] = {
            "required": not is_dataclass(route.request) or any(map(_is_required, fields(route.request))),
            "content": {_JSON: {"schema": schemas.of(route.request, closed=True)}},
        }
    return made


def _is_required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _path_parameters(path: str) -> list[dict[str, Any]]:
    found = []
    for name, pattern in _TEMPLATE.findall(path):
        meaning, example = _PARAMETERS.get(name, (name, None))
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if pattern:
            schema["pattern"] = f"^{pattern}$"
        if example is not None:
            schema["examples"] = [example]
        found.append({"name": name, "in": "path", "required": True, "description": meaning, "schema": schema})
    return found


def _query_parameters(query: type | None, schemas: Schemas) -> list[dict[str, Any]]:
    if query is None:
        return []
    hints = get_type_hints(query)
    found = []
    for field in fields(query):
        description = description_of(field)
        schema = schemas.of(hints[field.name])
        kind = schema.get("type")
        if isinstance(kind, list):
            # Absent stands for null.
            schema["type"] = kind[0]
            if "enum" in schema:
                schema["enum"] = [value for value in schema["enum"] if value is not None]
        schema |= description.limits
        if schema.get("type") == "string" and not schema.keys() & {"enum", "format", "pattern"}:
            schema["pattern"] = _NO_NUL
        if description.example is not None:
            schema["examples"] = [description.example]
        if field.default not in (None, ()):
            schema["default"] = field.default
        # Forms send empty parameters.
        own = {"anyOf": [schema, {"const": ""}]}
        found.append({"name": field.name, "in": "query", "description": description.meaning, "schema": own})
    return found


def _responses(reply: Reply, schemas: Schemas, problem: Mapping[str, Any]) -> dict[str, Any]:
    def response(status: HTTPStatus, body: Any) -> dict[str, Any]:
        made: dict[str, Any] = {"description": status.phrase, "headers": {CORRELATION: _CORRELATION_HEADER}}
        if body is not None:
            made["content"] = {_JSON: {"schema": schemas.of(body)}}
        elif status == reply.status and reply.media:
            made["content"] = {media: {"schema": {"type": "string"}} for media in reply.media}
        return made

    found = {str(int(reply.status)): response(reply.status, reply.body)}
    found |= {str(int(status)): response(status, body) for status, body in reply.also.items()}
    return {**found, "4XX": dict(problem), "default": dict(problem)}
