"""The suite as it would be with a module's version, before any file is written."""

import re
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.files.leftovers import remove_leftovers
from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import ConfigurationError, ModuleError
from helmd.model.layout import Layout
from helmd.model.modules.record import ModuleRecord, Version
from helmd.model.modules.settings import entry_text
from helmd.model.suite.composition import whole_suite
from helmd.model.suite.names import unit_of
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry, Service
from helmd.operations.configuration.load import registry_sources

_OURS = re.compile(r"# Written by helmctl modules")


def entry_file(layout: Layout, name: str) -> Path:
    """Return the file that makes a module part of the suite."""
    return layout.registry_directory / f"{name}.toml"


def version_path(name: str, version: str) -> str:
    """Return the ``path`` of a service that runs from a version of the module NAME."""
    return f"modules/{name}/versions/{version}"


def is_entry(layout: Layout, name: str) -> bool:
    """Return whether a file of Helm's makes NAME part of the suite."""
    try:
        return _OURS.match(entry_file(layout, name).read_text(errors="replace")) is not None
    except OSError:
        return False


def check_entry(layout: Layout, name: str) -> None:
    """Raise ModuleError if the file that would make NAME part of the suite is the admin's own."""
    file = entry_file(layout, name)
    try:
        ours = _OURS.match(file.read_text(errors="replace")) is not None
    except FileNotFoundError:
        return
    except OSError as problem:
        raise ModuleError(f"{file} can't be read: {problem.strerror}") from None
    if not ours:
        raise ModuleError(
            f"{file} was not written by helmctl modules", hint=f"Move what it says into {layout.registry_file}."
        )


def catalogue_service(layout: Layout, settings: Settings, name: str) -> Service | None:
    """Return the service NAME of the catalogue and the account's files, whether it is part of the suite or not."""
    sources, _ = registry_sources(layout)
    sources.append(ConfigSource("", f"[services.{name}]\n"))
    known = [source for source in sources if source.catalogue or source.file in ("", str(layout.registry_file))]
    try:
        return read_registry(known, settings.taken_ports())[name]
    except ConfigurationError as error:
        # Other faults, such as a missing dependency, do not concern its source.
        if all(not fault.where.startswith(f"services.{name}.install") for fault in error.faults):
            return _alone(sources, name)
        raise


def _alone(sources: list[ConfigSource], name: str) -> Service | None:
    from helmd.model.suite.registry import collect

    services, _, _ = collect(sources)
    return services.get(name)


def planned_suite(
    layout: Layout, settings: Settings, name: str, version: str, source: str, ref: str, declared: str
) -> Registry:
    """Return the suite with the module NAME run from VERSION, whose tree declares settings.

    Raises ConfigurationError.
    """
    files = {str(layout.module(name).declared), str(entry_file(layout, name))}
    sources, faults = registry_sources(layout)
    if faults:
        raise ConfigurationError(faults)
    others = [each for each in sources if each.file not in files]
    own = [ConfigSource(f"{name}/hivematrix.toml", declared, catalogue=True)] if declared else []
    entry = ConfigSource(str(entry_file(layout, name)), entry_text(name, version_path(name, version), source, ref))
    # As `registry_sources` orders them: the package's catalogue, declared settings, the admin's files.
    registry = read_registry([*others[:1], *own, *others[1:], entry], settings.taken_ports())
    return whole_suite(registry, settings)


def place_entry(layout: Layout, record: ModuleRecord, version: Version) -> None:
    """Write the files that make the service of a module run from VERSION, each atomically; apply follows."""
    name = record.name
    places = layout.module(name)
    declared = places.declared_by(version.id)
    if declared.exists():
        write_atomically(places.declared, declared.read_text(), 0o600)
    else:
        places.declared.unlink(missing_ok=True)
    layout.registry_directory.mkdir(parents=True, exist_ok=True)
    text = entry_text(name, version_path(name, version.id), record.source, record.ref)
    write_atomically(entry_file(layout, name), text)


def remove_entry(layout: Layout, name: str) -> None:
    """Remove the files that make a module part of the suite; apply removes its unit."""
    check_entry(layout, name)
    entry_file(layout, name).unlink(missing_ok=True)
    layout.module(name).declared.unlink(missing_ok=True)
    clear_entry(layout, name)


def clear_entry(layout: Layout, name: str) -> None:
    """Remove incomplete files of an interrupted change that make a module part of the suite. It must be locked."""
    for file in (entry_file(layout, name), layout.module(name).declared, layout.unit_file(unit_of(name))):
        remove_leftovers(file.parent, file.name)
