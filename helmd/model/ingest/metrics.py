"""Measurements that are posted to Helm, and what is wrong with them."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from helmd.model.errors import UsageError
from helmd.model.ingest.body import Body, kind_of, objects, shown_value, timestamp_in
from helmd.model.logs.parsing.structured import storable

_METRIC = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,99}\Z")
_METRIC_DAYS = 14
"""Days for which measurements are kept as they were taken; an older timestamp is not accepted."""
_MOST_TAGS, _TAG_KEY, _TAG_VALUE = 32, 100, 1000


class Measurement(NamedTuple):
    """One posted value of a metric."""

    name: str
    value: float
    timestamp: datetime
    tags: Mapping[str, str] | None


def measurements(body: Body, now: datetime) -> list[Measurement]:
    """What a body of measurements that came NOW says. Raises UsageError."""
    return [_measurement(where, entry, now) for where, entry in objects(body, "metrics")]


def _measurement(where: str, entry: dict[str, Any], now: datetime) -> Measurement:
    dot = f"{where}." if where else ""
    name, value = entry.get("name"), entry.get("value")
    if not isinstance(name, str) or not _METRIC.match(name):
        raise UsageError(
            f"{dot}name: must be a letter or '_' and up to 99 of A-Z, a-z, 0-9 and _.:-, not {shown_value(name)}"
        )
    if value.__class__ not in (int, float) or abs(number := _float(value)) == math.inf:
        raise UsageError(f"{dot}value: must be a finite number, not {shown_value(value)}")
    timestamp = timestamp_in(entry.get("timestamp"), now, _METRIC_DAYS) or now
    return Measurement(name, number, timestamp, _tags(dot, entry.get("tags")))


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _tags(dot: str, given: object) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise UsageError(f"{dot}tags: must be an object, not {kind_of(given)}")
    if len(given) > _MOST_TAGS:
        raise UsageError(f"{dot}tags: at most {_MOST_TAGS} are taken, not {len(given)}")
    tags: dict[str, str] = {}
    for key, value in given.items():
        if not isinstance(value, str):
            raise UsageError(f"{dot}tags: {shown_value(key)} must be text, not {kind_of(value)}")
        if len(key) > _TAG_KEY or len(value) > _TAG_VALUE:
            raise UsageError(
                f"{dot}tags: {shown_value(key)} is longer than {_TAG_KEY} characters, or its text than {_TAG_VALUE:,}"
            )
        tags[storable(key)] = storable(value)
    return tags
