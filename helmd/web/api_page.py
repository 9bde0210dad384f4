"""The page about the API: HTML made from the OpenAPI document, with a curl(1) line for each operation."""

import json
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from helmd.model.api.json_schema import COMPONENTS

_SOCKET = '--unix-socket "$XDG_RUNTIME_DIR/hivematrix/helm.sock"'
_Part = Mapping[str, Any]


def api_page(document: _Part) -> str:
    """Return the HTML of the page about the API that DOCUMENT describes."""
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    contents = "".join(
        f'<li><a href="#{_anchor(operation)}"><code>{method.upper()} {escape(path)}</code></a>'
        f" {escape(operation['summary'])}</li>"
        for method, path, operation in operations
    )
    return (
        f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}: API</h1>"
        f"<p>{escape(document['info']['description'])} The same for programs: <code>GET /api/openapi.json</code>.</p>"
        "<p>The lines below use the account's unix socket. Over TCP, send a token instead:"
        ' <code>curl -H "Authorization: Bearer $TOKEN" http://localhost:5004/…</code></p>'
        f"<ul>{contents}</ul>"
        + "".join(_operation(method, path, operation, document) for method, path, operation in operations)
        + "<h2>Bodies</h2>"
        + "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    )


def _anchor(operation: _Part) -> str:
    return escape(operation["operationId"])


def _operation(method: str, path: str, operation: _Part, document: _Part) -> str:
    parameters = "".join(
        _row(f"{each['name']} ({each['in']})", each["schema"], each.get("description", ""))
        for each in operation.get("parameters", ())
    )
    replies = "".join(
        f"<li>{escape(status)}: {escape(_content_of(reply))}</li>"
        for status, reply in operation["responses"].items()
        if status not in ("4XX", "default")
    )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    return (
        f'<section id="{_anchor(operation)}"><h2><code>{method.upper()} {escape(path)}</code></h2>'
        f"<p>{escape(operation['summary'])}. {escape(operation['description'])}</p>"
        f"<pre>{escape(curl_line(method, path, operation, document))}</pre>"
        + (f"<table><tr><th>parameter</th><th>type</th><th>meaning</th></tr>{parameters}</table>" if parameters else "")
        + (f"<p>Body: {escape(_type_of(body))}</p>" if body is not None else "")
        + f"<ul>{replies}</ul></section>"
    )


def curl_line(method: str, path: str, operation: _Part, document: _Part) -> str:
    """Return a command that does the operation, with examples for what it needs."""
    for each in operation.get("parameters", ()):
        if each["in"] == "path":
            example = each["schema"].get("examples", [each["name"].upper()])[0]
            path = path.replace(f"{{{each['name']}}}", str(example))
    words = ["curl", _SOCKET]
    if method != "get":
        words.append(f"-X {method.upper()}")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        words.append(f"--json {shlex.quote(json.dumps(example_of(body, document)))}")
    return " ".join([*words, f"http://helm{path}"])


def example_of(schema: _Part, document: _Part) -> Any:
    """Return a value with the members that SCHEMA requires, from its examples."""
    if examples := schema.get("examples"):
        return examples[0]
    if reference := schema.get("$ref"):
        return example_of(document["components"]["schemas"][reference.removeprefix(COMPONENTS)], document)
    if choices := schema.get("anyOf"):
        return example_of(choices[0], document)
    if values := schema.get("enum"):
        return values[0]
    kind = schema.get("type")
    if kind == "array":
        return [example_of(schema["items"], document)]
    if kind == "object":
        named = schema.get("properties", {})
        wanted = schema.get("required") or list(named)[:2]
        return {name: example_of(named[name], document) for name in wanted}
    return {"string": "…", "integer": 1, "number": 1, "boolean": True}.get(kind if isinstance(kind, str) else "")


def _content_of(reply: _Part) -> str:
    content = reply.get("content", {})
    return ", ".join(
        f"{media} {_type_of(each['schema'])}" if media == "application/json" else media
        for media, each in content.items()
    ) or str(reply.get("description", ""))


def _schema(name: str, schema: _Part) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        _row(member if member in required else f"{member} (optional)", own, own.get("description", ""))
        for member, own in schema.get("properties", {}).items()
    )
    return (
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>'
        f"<table><tr><th>member</th><th>type</th><th>meaning</th></tr>{rows}</table></section>"
    )


def _row(name: str, schema: _Part, meaning: str) -> str:
    limits = "; ".join(_limits(schema))
    said = f"{meaning} ({limits})" if limits else meaning
    return f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type_of(schema))}</td><td>{escape(said)}</td></tr>"


def _limits(schema: _Part) -> Iterator[str]:
    for part in (schema, *schema.get("anyOf", ())):
        for word, saying in (
            ("minimum", "at least"),
            ("maximum", "at most"),
            ("maxItems", "at most"),
            ("default", "default"),
        ):
            if word in part and part[word] not in ("", [], {}):
                yield f"{saying} {part[word]}"


def _type_of(schema: _Part) -> str:
    if reference := schema.get("$ref"):
        return str(reference).removeprefix(COMPONENTS)
    if "anyOf" in schema:
        return " or ".join(_type_of(each) for each in schema["anyOf"] if each != {"const": ""})
    if values := schema.get("enum"):
        return " | ".join("null" if value is None else str(value) for value in values)
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type_of(schema['items'])}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type_of(schema['additionalProperties'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(schema.get("format", kind))
