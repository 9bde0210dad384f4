"""The OpenAPI document, the schemas of dataclasses, and bodies that are parsed and serialised by them."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_type_hints
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from helmd.model.api.ingest import PostedEntries, PostedMeasurements, SinglePostedEntry, SinglePostedMeasurement
from helmd.model.api.json_codec import from_json, to_json
from helmd.model.api.json_schema import Schemas, document_for
from helmd.model.api.logs import LogEntry, LogFilterQuery
from helmd.model.errors import UsageError
from helmd.model.field_error import FieldError
from helmd.model.ingest.body import read_body
from helmd.model.ingest.logs import log_rows
from helmd.model.ingest.metrics import measurements
from helmd.model.json_fields import described, description_of
from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import log_filter_of
from helmd.store.logs.entries import StoredEntry
from helmd.web.api_page import api_page, curl_line, example_of
from helmd.web.http.validation import faults_in, parse_request
from helmd.web.openapi import openapi, template
from helmd.web.route import Route
from helmd.web.table import described_table
from tests.unit.test_api_document import Asked


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A part of a vehicle.

    More than the first sentence is for the source.
    """

    size: int = field(metadata=described("inches", example=28, minimum=1, maximum=60))


@dataclass(frozen=True, slots=True)
class Vehicle:
    """What is driven."""

    name: str = field(metadata=described("its name", minLength=1, pattern="^[a-z]+$"))
    built: datetime = field(metadata=described("when it was built"))
    wheels: tuple[Wheel, ...] = field(metadata=described("all of them", maxItems=4))
    colour: Colour | None = field(default=None, metadata=described("of its paint", omitted=True))
    kind: Literal["car", "bus"] = field(default="car", metadata=described("which kind"))
    tags: Mapping[str, str] = field(default_factory=dict, metadata=described("by name"))
    note: str | None = field(default=None, metadata=described("anything"))


@dataclass(frozen=True, slots=True)
class OpenBody:
    """Takes other members, too."""

    OPEN: ClassVar[bool] = True

    name: str


CAR = Vehicle("beetle", datetime(1970, 1, 2, tzinfo=UTC), (Wheel(15),))
AS_JSON: dict[str, Any] = {
    "name": "beetle",
    "built": "1970-01-02T00:00:00+00:00",
    "wheels": [{"size": 15}],
    "kind": "car",
    "tags": {},
    "note": None,
}


def table() -> list[Route]:
    return list(described_table(cast(Any, Mock())))


DOCUMENT = openapi(table())


def test_a_dataclass_becomes_json_and_the_same_again() -> None:
    assert to_json(CAR) == AS_JSON
    assert from_json(Vehicle, AS_JSON) == CAR
    red = from_json(Vehicle, AS_JSON | {"colour": "red", "built": "1970-01-02T00:00:00"})
    assert red.colour is Colour.RED and red.built == CAR.built
    assert to_json(red)["colour"] == "red"
    assert to_json({"a": CAR}, Mapping[str, Vehicle]) == {"a": AS_JSON}


def test_its_schema() -> None:
    schemas = Schemas()
    assert schemas.of(Vehicle) == {"$ref": "#/components/schemas/Vehicle"}
    assert schemas.components["Wheel"] == {
        "type": "object",
        "description": "A part of a vehicle.",
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 60, "description": "inches", "examples": [28]}
        },
        "required": ["size"],
    }
    vehicle = schemas.components["Vehicle"]
    assert vehicle["required"] == ["name", "built", "wheels", "kind", "tags", "note"], "all but what is omitted"
    assert vehicle["properties"]["colour"] == {"type": "string", "enum": ["red"], "description": "of its paint"}
    assert vehicle["properties"]["note"] == {"type": ["string", "null"], "description": "anything"}
    Draft202012Validator(document_for(Vehicle)).validate(AS_JSON)


def test_two_classes_of_one_name_and_types_without_json_are_refused() -> None:
    schemas = Schemas()
    schemas.of(Wheel)
    other: Any = dataclass(type("Wheel", (), {"__annotations__": {"size": str}}))
    with pytest.raises(ValueError, match="called Wheel"):
        schemas.of(other)
    with pytest.raises(TypeError, match="no JSON Schema"):
        schemas.of(Path)
    with pytest.raises(TypeError, match="no JSON"):
        to_json(Path("/"))


@pytest.mark.parametrize(
    ("changed", "pointer", "detail", "code"),
    [
        ({"name": ""}, "#/name", "must have at least 1", "minLength"),
        ({"name": "beetle\n"}, "#/name", "must match ^[a-z]+$", "pattern"),
        ({"name": None}, "#/name", "must be string", "type"),
        ({"wheels": [{"size": 15}, {"size": 0}]}, "#/wheels/1/size", "must be at least 1", "minimum"),
        ({"wheels": [{"size": 1}] * 5}, "#/wheels", "must have at most 4", "maxItems"),
        ({"kind": "train"}, "#/kind", "must be one of car, bus", "enum"),
        ({"a/b~": 1}, "#/a~1b~0", "is not known here", "additionalProperties"),
        ({"tags": {"a": 1}}, "#/tags/a", "must be string", "type"),
        ({"built": "the day before"}, "#/built", "must be a date-time", "format"),
        ({"built": ""}, "#/built", "must be a date-time", "format"),
    ],
)
def test_a_fault_in_a_body_has_a_pointer(changed: dict[str, Any], pointer: str, detail: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_request(json.dumps(AS_JSON | changed).encode(), Vehicle)
    fault = FieldError(pointer, detail, code)
    assert fault in caught.value.errors
    assert detail in caught.value.sentence


def test_what_is_missing_or_not_json_is_said_so() -> None:
    with pytest.raises(UsageError, match="built: is missing") as caught:
        parse_request(b'{"name": "a"}', Vehicle)
    assert FieldError("#/built", "is missing", "required") in caught.value.errors
    for text in (b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000):
        with pytest.raises(UsageError) as caught:
            parse_request(text, Vehicle)
        assert caught.value.errors == (FieldError("#", "the body is not JSON", "json"),)
    # As an escape, in a key, and as the three bytes that UTF-8 does not allow.
    for text in (rb'{"name": "a", "more": "\ud800"}', rb'{"name": "a", "\udfff": 1}', b'{"name": "\xed\xa0\x80"}'):
        with pytest.raises(UsageError, match="surrogate") as caught:
            parse_request(text, OpenBody)
        assert [fault.code for fault in caught.value.errors] == ["json"]
    assert parse_request(rb'{"name": "\ud83d\ude00"}', OpenBody).name == "\N{GRINNING FACE}"
    assert parse_request(json.dumps(AS_JSON).encode(), Vehicle) == CAR
    assert parse_request(b'{"name": "a", "more": 1}', OpenBody) == OpenBody("a")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["tickets", "Tickets!", None, 5]), json_values, st.booleans())
def test_the_parser_of_log_entries_takes_what_its_schema_takes(name: object, logs: Any, single: bool) -> None:
    """It is made by hand for speed; the schema is what the document says."""
    body = {"service_name": name, **({"message": logs} if single else {"logs": logs})}
    kind = SinglePostedEntry if single else PostedEntries
    expected = list(faults_in(body, kind))
    try:
        log_rows(read_body(json.dumps(body).encode(), "logs", "message"), datetime.now(UTC), 90)
    except UsageError as error:
        assert expected, error
        assert {(fault.pointer, fault.code) for fault in error.errors} <= {
            (fault.pointer, fault.code) for fault in expected
        }
    else:
        assert expected == []


NAMES: st.SearchStrategy[Any] = st.sampled_from(["queue_length", "0", None])
VALUES: st.SearchStrategy[Any] = st.sampled_from([1, 1.5, "1", None])
measured = st.fixed_dictionaries(
    {"name": NAMES, "value": VALUES},
    optional={"tags": st.sampled_from([None, {}, {"a": "b"}, {"a": 1}, [], {"a" * 101: ""}, {"a": "b" * 1001}])},
)


@given(st.lists(measured, max_size=2) | json_values, st.booleans())
def test_the_parser_of_measurements_takes_what_its_schema_takes(metrics: Any, single: bool) -> None:
    if single and isinstance(metrics, list) and metrics and isinstance(metrics[0], dict):
        body, kind = {"service_name": "tickets", **metrics[0]}, cast(type, SinglePostedMeasurement)
        if "name" not in body:
            return
    else:
        body, kind = {"service_name": "tickets", "metrics": metrics}, PostedMeasurements
    expected = list(faults_in(body, kind))
    try:
        measurements(read_body(json.dumps(body).encode(), "metrics", "name"), datetime.now(UTC))
    except UsageError as error:
        assert expected, error
        assert error.errors
    else:
        assert expected == []


def test_an_entry_of_the_api_is_a_row_with_its_id() -> None:
    assert [each.name for each in fields(LogEntry)] == ["id", *LogRow._fields]
    entry = StoredEntry(7, LogRow(datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "core", "INFO", "hello", {"a": [1]}))
    assert entry.as_json() == to_json(entry.body), "streams make it another way, for speed"


def test_the_parameters_of_a_filter_are_those_that_are_read() -> None:
    asked = Asked()
    log_filter_of(asked)
    assert {each.name for each in fields(LogFilterQuery)} == asked.names


def test_every_route_has_the_types_of_its_bodies() -> None:
    untyped = [f"{route.method} {route.path}" for route in table() if route.reply is None]
    assert untyped == []


def bodies() -> set[type]:
    """Return every dataclass of the API."""
    found: set[type] = set()

    def visit(kind: Any) -> None:
        if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
            if kind not in found:
                found.add(kind)
                for hint in get_type_hints(kind).values():
                    visit(hint)
            return
        for inner in getattr(kind, "__args__", ()):
            visit(inner)

    for route in table():
        visit(route.query)
        visit(route.request)
        if route.reply is not None:
            visit(route.reply.body)
            for also in route.reply.also.values():
                visit(also)
    return found


def test_every_field_says_what_it_means_and_its_example_is_valid() -> None:
    assert len(bodies()) > 15
    for kind in bodies():
        assert kind.__doc__ and not kind.__doc__.startswith(kind.__name__ + "("), kind
        for each in fields(cast(Any, kind)):
            description = description_of(each)
            assert description.meaning, f"{kind.__name__}.{each.name}"
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for member, own in schema["properties"].items():
            for example in own.get("examples", ()):
                whole = {**own, "components": DOCUMENT["components"]}
                assert list(Draft202012Validator(whole).iter_errors(example)) == [], f"{name}.{member}"


def test_every_schema_is_valid_and_every_reference_leads_somewhere() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in {part.split('"')[0] for part in json.dumps(DOCUMENT).split('"$ref": "')[1:]}:
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_the_page_about_the_api() -> None:
    page = api_page(DOCUMENT)
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            assert f"<code>{method.upper()} {path}</code></h2>" in page
            line = curl_line(method, path, operation, DOCUMENT)
            assert "{" not in line.partition("http://")[2], line
            assert shlex.split(line)[-1].startswith("http://helm/")
    for name in DOCUMENT["components"]["schemas"]:
        assert f'<section id="{name}">' in page
    assert "<script" not in page and " style=" not in page, "its policy allows neither"


def test_the_example_of_a_body_is_valid() -> None:
    for route in table():
        if route.request is not None:
            operation = DOCUMENT["paths"][template(route.path)][route.method.lower()]
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            whole = {**schema, "components": DOCUMENT["components"]}
            example = example_of(schema, DOCUMENT)
            assert list(Draft202012Validator(whole).iter_errors(example)) == [], (route.path, example)


def test_operations() -> None:
    entry = DOCUMENT["paths"]["/api/logs/{id}"]["get"]
    assert entry["parameters"][0]["schema"]["pattern"] == "^[0-9]+$"
    assert entry["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/LogEntry"
    }
    assert entry["responses"]["default"] == {"$ref": "#/components/responses/Problem"}
    assert entry["x-role"] == "billing" and entry["security"] == [{"bearer": []}]
    assert DOCUMENT["paths"]["/health"]["get"]["security"] == []
    ingest = DOCUMENT["paths"]["/api/logs/ingest"]["post"]
    assert {} in ingest["security"], "anonymous, where the settings allow it"
    levels = next(each for each in DOCUMENT["paths"]["/api/logs"]["get"]["parameters"] if each["name"] == "level")
    assert levels["schema"]["anyOf"][0]["items"]["enum"] == ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    identifiers = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(identifiers) == len(set(identifiers)) == len(table())
