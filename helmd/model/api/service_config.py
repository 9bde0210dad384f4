"""Bodies of ``/api/services/{name}/config``: the settings of a service as written, and changes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from helmd.model.api.jobs import REASON, JobReply
from helmd.model.json_fields import described

MAX_KEYS = 100
UnitChange = Literal["new", "changed", "orphan", "refused", "foreign"]

_KEYS = {"type": "string", "minLength": 1, "maxLength": 200}


@dataclass(frozen=True, slots=True)
class ServiceSetting:
    """A setting as a file has it."""

    key: str = field(metadata=described("its key, dotted below the service's table", example="health.path"))
    value: object = field(metadata=described("what is written; parts that look like a secret are ********"))
    file: str = field(metadata=described("the file that it is in; of variables in several files, the last one"))
    line: int = field(metadata=described("the line; 0 if unknown", example=12))
    editable: bool = field(metadata=described("whether it is in services.toml of the account, which PUT changes"))


@dataclass(frozen=True, slots=True)
class ServiceConfigReply:
    """The settings of a service, as far as a file sets them; all others have their defaults."""

    service_name: str = field(metadata=described("the service", example="core"))
    file: str = field(metadata=described("the file that PUT changes"))
    settings: tuple[ServiceSetting, ...] = field(metadata=described("in the order of the manual page services.toml(5)"))
    faults: tuple[str, ...] = field(metadata=described("what is wrong in the registry's files; PUT needs none"))


@dataclass(frozen=True, slots=True)
class ServiceConfigBody:
    """A change of settings."""

    set: Mapping[str, object] = field(
        default_factory=dict,
        metadata=described(
            "values by key, as in services.toml(5)",
            example={"health.timeout": "5s"},
            maxProperties=MAX_KEYS,
            propertyNames=_KEYS,
        ),
    )
    unset: tuple[str, ...] = field(
        default=(), metadata=described("keys to be taken out of services.toml", maxItems=MAX_KEYS, items=_KEYS)
    )
    apply: bool = field(default=True, metadata=described("start the job helmctl apply NAME; false only writes"))
    reason: str = field(default="", metadata=REASON)


@dataclass(frozen=True, slots=True)
class ServiceConfigQuery:
    """How to change it."""

    dry_run: bool = field(default=False, metadata=described("only answer what would be changed"))


@dataclass(frozen=True, slots=True)
class UnitDifference:
    """A unit that differs from the one that is rendered from the new settings."""

    unit: str = field(metadata=described("the unit", example="hivematrix-core.service"))
    change: UnitChange = field(
        metadata=described(
            "new, changed; orphan: would be removed; refused: stays because of faults; foreign: not Helm's, stays"
        )
    )
    diff: str = field(metadata=described("unified diff; parts that look like a secret are ********"))
    applied: bool = field(metadata=described("whether helmctl apply NAME does it; if not: helmctl apply"))
    faults: tuple[str, ...] = field(metadata=described("why it stays as it is"))


@dataclass(frozen=True, slots=True)
class ServiceConfigChanged:
    """What a change of settings changes."""

    service_name: str = field(metadata=described("the service", example="core"))
    dry_run: bool = field(metadata=described("whether nothing was done"))
    changed: bool = field(metadata=described("whether services.toml changes"))
    file: str = field(metadata=described("which services.toml"))
    diff: str = field(metadata=described("its unified diff; parts that look like a secret are ********"))
    units: tuple[UnitDifference, ...] = field(metadata=described("units that helmctl apply changes then"))
    next: str = field(
        metadata=described("the command that remains to be run; empty if none", example="helmctl restart core")
    )
    job: JobReply | None = field(metadata=described("the job that applies it; null without one"))
