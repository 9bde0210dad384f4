"""Measurements that are posted to Helm, and what is wrong with them."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from helmd.model.api.ingest import MAX_METRIC, MAX_TAG_KEY, MAX_TAG_VALUE, MAX_TAGS, METRIC_PATTERN
from helmd.model.ingest.body import Body, BodyPath, body_fault, kind_of, objects, shown_value, timestamp_in
from helmd.model.logs.parsing.structured import storable
from helmd.model.logs.retention import METRIC_DAYS

_METRIC = re.compile(METRIC_PATTERN.removesuffix("$") + r"\Z")
_OWN_METRICS = frozenset({"cpu_percent", "memory_mb", "restarts", "response_ms", "log_rate", "health"})
"""What Helm itself measures, without tags: what is posted under these names gets one, so that it is another series."""
_POSTED = {"source": "posted"}


class Measurement(NamedTuple):
    """One posted value of a metric."""

    name: str
    value: float
    timestamp: datetime
    tags: Mapping[str, str] | None


def measurements(body: Body, now: datetime) -> list[Measurement]:
    """Return what a body of measurements that came NOW says. Raises UsageError."""
    return [_measurement(where, entry, now) for where, entry in objects(body, "metrics")]


def _measurement(where: BodyPath, entry: dict[str, Any], now: datetime) -> Measurement:
    name, value = entry.get("name"), entry.get("value")
    if not isinstance(name, str) or not _METRIC.match(name):
        rule = "must be a letter or '_' and up to 99 of A-Z, a-z, 0-9 and _.:-"
        raise body_fault((*where, "name"), f"{rule}, not {shown_value(name)}", _keyword(entry, "name", name))
    # Written so that what is not a number (NaN) fails too.
    if value.__class__ not in (int, float) or not abs(number := _float(value)) <= MAX_METRIC:
        code = _keyword(entry, "value", value)
        if code == "type" and value.__class__ in (int, float) and value == value and abs(value) != math.inf:
            code = "maximum" if value > 0 else "minimum"
        rule = f"must be a finite number of at most {MAX_METRIC:g}"
        raise body_fault((*where, "value"), f"{rule}, not {shown_value(value)}", code)
    timestamp = timestamp_in(entry.get("timestamp"), now, METRIC_DAYS) or now
    tags = _tags((*where, "tags"), entry.get("tags"))
    return Measurement(name, number, timestamp, tags or (_POSTED if name in _OWN_METRICS else tags))


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _keyword(entry: dict[str, Any], name: str, value: object) -> str:
    """Return the keyword of JSON Schema that a wrong member fails."""
    if name not in entry:
        return "required"
    return "pattern" if isinstance(value, str) and name == "name" else "type"


def _tags(where: BodyPath, given: object) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise body_fault(where, f"must be an object, not {kind_of(given)}", "type")
    if len(given) > MAX_TAGS:
        raise body_fault(where, f"at most {MAX_TAGS} are taken, not {len(given)}", "maxProperties")
    tags: dict[str, str] = {}
    for key, value in given.items():
        if not isinstance(value, str):
            raise body_fault(where, f"{shown_value(key)} must be text, not {kind_of(value)}", "type")
        if len(key) > MAX_TAG_KEY or len(value) > MAX_TAG_VALUE:
            detail = f"{shown_value(key)} is longer than {MAX_TAG_KEY} characters, or its text than {MAX_TAG_VALUE:,}"
            raise body_fault(where, detail, "maxLength")
        tags[storable(key)] = storable(value)
    return tags
