"""Reads the settings of one service as they are written, and changes them in the account's ``services.toml``."""

import hashlib
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from helmd.files.durable import write_atomically
from helmd.files.lock import locked
from helmd.model.api.service_config import (
    ServiceConfigBody,
    ServiceConfigChanged,
    ServiceConfigReply,
    ServiceSetting,
    UnitDifference,
)
from helmd.model.config.registry_edit import edited, masked, text_difference
from helmd.model.config.service_schema import SERVICE_SETTINGS
from helmd.model.config.toml_lines import line_of
from helmd.model.config.toml_tables import ConfigSource, parse_toml, shown_key
from helmd.model.errors import ConfigurationError, Fault, HelmError, UnknownServiceError, UsageError
from helmd.model.field_error import FieldError
from helmd.model.layout import Layout
from helmd.model.suite.names import unit_of
from helmd.model.suite.registry import collect
from helmd.operations.configuration.apply import Change, changes, changes_for
from helmd.operations.configuration.load import load_settings, load_suite, path_faults, registry_sources

_ORDER = {setting.key: place for place, setting in enumerate(SERVICE_SETTINGS)}
_GROUPS = frozenset(key.partition(".")[0] for key in _ORDER if "." in key)


class ChangedMeanwhileError(HelmError):
    """The files have changed since the caller has read them."""

    code = "precondition_failed"


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """The settings as they are written, and the ETag of all of the registry's files."""

    reply: ServiceConfigReply
    etag: str
    later: Mapping[str, str] = field(default_factory=dict)
    """Settings and variables (environment.NAME) that a later file overrides, so that the account's can't change them;
    with that file and line.
    """


def service_config(layout: Layout, service: str) -> ServiceConfig:
    """Return the settings of SERVICE. Raises UnknownServiceError if none of the account's files has it."""
    sources, unread = registry_sources(layout)
    _, _, faults = collect(sources)
    found: dict[str, ServiceSetting] = {}
    later: dict[str, str] = {}
    directory = f"{layout.registry_directory}/"
    member = False
    for source in sources:
        tables, lines = parse_toml(source, [])
        own = _own_table(tables, service)
        member |= own is not None and not source.catalogue
        for key, value in _leaves(own or {}):
            line = line_of(lines, ("services", service, *key.split(".")))
            earlier = found[key].value if key in found else None
            if source.file.startswith(directory):
                later |= dict.fromkeys(_names(key, value), f"{source.file}, line {line}" if line else source.file)
            if isinstance(value, dict) and isinstance(earlier, dict):
                # The registry merges variables in the same way.
                value = {**earlier, **value}
            editable = source.file == str(layout.registry_file)
            found[key] = ServiceSetting(shown_key(key), masked(value), source.file, line, editable)
    if not member:
        raise UnknownServiceError(f"no file of the registry has a service '{service}'", hint="See: helmctl status")
    settings = sorted(found.values(), key=lambda each: _ORDER.get(each.key, len(_ORDER)))
    said = tuple(map(str, (*unread, *faults)))
    reply = ServiceConfigReply(service, str(layout.registry_file), tuple(settings), said)
    return ServiceConfig(reply, _etag(sources), later)


def change_service_config(
    layout: Layout, service: str, wanted: ServiceConfigBody, etags: Collection[str] | None, *, dry_run: bool = False
) -> tuple[ServiceConfigChanged, str]:
    """Change settings of SERVICE in the account's file; return what that changes, and the new ETag.

    With DRY_RUN nothing is written. ETAGS are those of states that the caller accepts; None accepts any.

    Raises ChangedMeanwhileError for another state, UsageError with the faults that the registry would have,
    UnknownServiceError, ConfigurationError, LockedError and OSError; then nothing has changed.
    """
    with locked(layout.apply_lock, "units are being applied"):
        before = service_config(layout, service)
        if etags is not None and before.etag not in etags:
            raise ChangedMeanwhileError(
                "the files of the registry have changed since they were read",
                hint="Read the settings again, and repeat the change with the new ETag.",
            )
        file = layout.registry_file
        old = file.read_text(encoding="utf-8") if file.exists() else ""
        new = _edited(old, service, wanted, str(file))
        settings = load_settings(layout)
        source = ConfigSource(str(file), new)
        try:
            registry = load_suite(layout, settings, source)
        except ConfigurationError as error:
            raise _refused(service, wanted, error.faults) from None
        if errors := list(_overridden(layout, source, service, wanted)):
            raise _usage(errors)
        faults = path_faults(registry, layout, {service})
        if errors := [each for each in _field_errors(service, wanted, faults) if each.pointer != "#"]:
            raise _usage(errors)
        found = changes(registry, layout, settings)
        mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o644
        if new != old and not dry_run:
            # Resolved, since a symbolic link would be replaced by the file.
            write_atomically(file.resolve(), new, mode)
        chosen = {change.unit for change in changes_for(found, {unit_of(service)})}
        units = tuple(_difference(change, change.unit in chosen) for change in found if change.kind != "same")
    changed = ServiceConfigChanged(
        service_name=service,
        dry_run=dry_run,
        changed=new != old,
        file=str(file),
        diff=text_difference(old, new, file.name),
        units=units,
        next=_next(service, units),
        job=None,
    )
    return changed, before.etag if dry_run else _etag(registry_sources(layout)[0])


def _edited(old: str, service: str, wanted: ServiceConfigBody, file: str) -> str:
    errors = []
    for key, value in wanted.set.items():
        if value is None:
            errors.append(_error("set", key, "must not be null; list the key in unset", "type"))
        if key in wanted.unset:
            errors.append(_error("set", key, "is in unset as well", "unset"))
    if not wanted.set and not wanted.unset:
        errors.append(FieldError("#", "set and unset are both empty", "minProperties"))
    if errors:
        raise _usage(errors)
    try:
        return edited(old, service, wanted.set, wanted.unset)
    except ValueError as problem:
        raise UsageError(f"{file}: {problem}", errors=[FieldError("#", str(problem), "toml")]) from None


def _refused(service: str, wanted: ServiceConfigBody, faults: Sequence[Fault]) -> UsageError:
    return _usage(list(_field_errors(service, wanted, faults)))


def _usage(errors: Sequence[FieldError]) -> UsageError:
    first = errors[0]
    where = first.pointer.removeprefix("#/")
    sentence = first.detail if where == "#" else f"{where.replace('~1', '/').replace('~0', '~')}: {first.detail}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return UsageError(f"{sentence}{more}; nothing was changed", errors=errors)


def _error(member: str, key: str, sentence: str, code: str) -> FieldError:
    return FieldError(f"#/{member}/{key.replace('~', '~0').replace('/', '~1')}", sentence, code)


def _field_errors(service: str, wanted: ServiceConfigBody, faults: Sequence[Fault]) -> Iterator[FieldError]:
    """Yield FAULTS with the key of the change that causes each; without one, with its file and line."""
    set = {shown_key(f"services.{service}.{key}"): key for key in wanted.set}
    unset = {f"services.{service}.{key}": number for number, key in enumerate(wanted.unset)}
    for fault in faults:
        # A fault of one variable is one of their table.
        key = set.get(fault.where) or next((set[each] for each in set if each.startswith(f"{fault.where}.")), None)
        if key is not None and fault.where:
            yield _error("set", key, fault.sentence, "setting")
        elif fault.where in unset:
            yield FieldError(f"#/unset/{unset[fault.where]}", fault.sentence, "setting")
        else:
            yield FieldError("#", str(fault), "configuration")


def _overridden(layout: Layout, source: ConfigSource, service: str, wanted: ServiceConfigBody) -> Iterator[FieldError]:
    """Yield errors for settings that a module's file, which is read later, has as well."""
    directory = f"{layout.registry_directory}/"
    for later in registry_sources(layout)[0]:
        if not later.file.startswith(directory):
            continue
        leaves = _leaves(_own_table(parse_toml(later, [])[0], service) or {})
        own = {name for key, value in leaves for name in _names(key, value)}
        for key in wanted.set:
            if key in own:
                yield _error("set", key, f"is set in {later.file}, which is read after {source.file}", "overridden")


def _own_table(tables: Mapping[str, Any], service: str) -> Mapping[str, Any] | None:
    services = tables.get("services")
    own = services.get(service) if isinstance(services, dict) else None
    return own if isinstance(own, dict) else None


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a service's table by dotted key; a table such as environment is one setting."""
    for key, value in table.items():
        if key in _GROUPS and isinstance(value, dict):
            yield from ((f"{key}.{inner}", each) for inner, each in value.items())
        else:
            yield key, value


def _names(key: str, value: object) -> Iterator[str]:
    """Yield the keys that are set by VALUE of KEY: KEY itself, or one for each variable in a table."""
    if isinstance(value, Mapping):
        yield from (f"{key}.{name}" for name in value)
    else:
        yield key


def _difference(change: Change, applied: bool) -> UnitDifference:
    after = change.before if change.kind in ("refused", "foreign") else change.after
    assert change.kind != "same"
    return UnitDifference(
        change.unit,
        change.kind,
        text_difference(change.before, after, change.unit),
        applied and change.pending,
        tuple(map(str, change.faults)),
    )


def _next(service: str, units: tuple[UnitDifference, ...]) -> str:
    """Return the command by which a change of the service's unit takes effect after it is applied; empty for none."""
    return f"helmctl restart {service}" if any(each.unit == unit_of(service) for each in units) else ""


def _etag(sources: list[ConfigSource]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        for part in (source.file, source.text):
            digest.update(len(part.encode()).to_bytes(8, "big"))
            digest.update(part.encode())
    return f'"{digest.hexdigest()[:32]}"'
