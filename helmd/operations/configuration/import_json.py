"""Imports an older Helm's ``services.json``: checks it together with the suite, and writes it to a file of its own."""

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helmd.files.durable import write_atomically
from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import MAX_FILE, ConfigSource, parse_toml, shown_key
from helmd.model.config.toml_text import toml_text
from helmd.model.errors import ConfigurationError, Fault, HelmError, UsageError
from helmd.model.layout import Layout
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry
from helmd.model.suite.services_json import Document, read_legacy
from helmd.operations.configuration.load import path_faults, registry_sources

FILE_NAME = "imported.toml"

LegacyEntries = Mapping[str, Mapping[str, Any]]
"""Settings by service."""


@dataclass(frozen=True, slots=True)
class Import:
    """The file to be written, and its ``services``. ``remarks`` are sentences without full stop for the admin."""

    target: Path
    text: str
    services: tuple[str, ...]
    remarks: tuple[str, ...]


def plan_import(
    files: Sequence[Path],
    base: Path | None,
    layout: Layout,
    settings: Settings,
    file_name: str = FILE_NAME,
    amend: Callable[[LegacyEntries], LegacyEntries] = lambda services: services,
) -> Import:
    """Read FILES, and check the suite as it would be with them; nothing is written.

    Relative paths start from BASE, by default each file's own directory, as in the older Helm. AMEND changes the
    entries. Raises UsageError, and ConfigurationError with every fault.
    """
    legacy = read_legacy(_documents(files, base))
    target = layout.registry_directory / file_name
    sources, faults = registry_sources(layout)
    others = [source for source in sources if source.file != str(target)]
    services, remarks = _without_absent_dependencies(amend(legacy.services), others)
    origin = ", ".join(shown_key(file.resolve()) for file in files)
    head = f'# Imported from {origin} by "helmctl import"; yours to change.\n\n'
    text = head + toml_text({"services": services})
    try:
        registry = read_registry(_in_order([*others, ConfigSource(str(target), text)], layout), settings.taken_ports())
    except ConfigurationError as error:
        faults += [_fault_of_source(fault, str(target), legacy.files) for fault in error.faults]
    if faults:
        raise ConfigurationError(faults)
    # Keycloak's directory is created at set-up.
    own = {name: service for name, service in registry.services.items() if service.type != "keycloak"}
    missing = [
        f"{fault.where.removeprefix('services.')}: {fault.sentence}"
        for fault in path_faults(Registry(own), layout)
        if fault.file == str(target)
    ]
    return Import(target, text, tuple(services), (*legacy.remarks, *remarks, *missing))


def write_import(planned: Import, force: bool) -> None:
    """Write the file. Raises UsageError if it exists, unless FORCE; HelmError if it can't be written."""
    if os.path.lexists(planned.target) and not force:
        raise UsageError(
            f"{planned.target} already exists", hint="--dry-run shows what would be written; --force replaces the file."
        )
    try:
        planned.target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(planned.target, planned.text)
    except OSError as problem:
        raise HelmError(f"could not write {planned.target}: {problem.strerror}") from None


def _documents(files: Sequence[Path], base: Path | None) -> list[Document]:
    faults: list[Fault] = []
    found = []
    for file in files:
        text = _read(file, faults)
        if text is None:
            continue
        if file.suffix == ".conf" or text.lstrip().startswith("[database"):
            raise UsageError(
                f"{file} is not a services.json; an older helm.conf contains only a database",
                hint="To store logs in that database, run: helmctl setup --database DSN",
            )
        found.append(Document(str(file), text, str((base or file.resolve().parent).absolute())))
    if faults:
        raise ConfigurationError(faults)
    return found


def _read(file: Path, faults: list[Fault]) -> str | None:
    try:
        # O_NONBLOCK: open(2) of a named pipe would wait for a writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as problem:
        faults.append(Fault(str(file), 0, "", f"can't be read ({getattr(problem, 'strerror', problem)})"))
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        faults.append(Fault(str(file), 0, "", "is not a regular file"))
        return None
    with os.fdopen(descriptor, "rb") as opened:
        content = opened.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        faults.append(Fault(str(file), 0, "", f"is larger than {MAX_FILE >> 20} MiB"))
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        faults.append(Fault(str(file), content[: problem.start].count(b"\n") + 1, "", "is not UTF-8 text"))
        return None


def _services_in(sources: Iterable[ConfigSource]) -> dict[str, Mapping[str, Any]]:
    """Return the services in SOURCES, as far as these can be parsed; later ones override."""
    found: dict[str, Mapping[str, Any]] = {}
    for source in sources:
        # Faults are reported when the whole suite is checked.
        tables, _ = parse_toml(source, [])
        services = tables.get("services", {})
        if isinstance(services, dict):
            found |= {name: entry for name, entry in services.items() if isinstance(entry, dict)}
    return found


def _without_absent_dependencies(
    services: Mapping[str, Mapping[str, Any]], sources: Sequence[ConfigSource]
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """Return SERVICES without the catalogue's dependencies on services that are not in the suite, and remarks on these.

    The older Helm had no dependencies.
    """
    catalogue = _services_in(source for source in sources if source.catalogue)
    present = _services_in(source for source in sources if not source.catalogue)
    fitted: dict[str, Mapping[str, Any]] = {}
    remarks = []
    for name, entry in services.items():
        fitted[name] = entry
        if name in present:
            remarks.append(f"{name}: already in the suite; the imported settings override services.toml")
        needs = catalogue.get(name, {}).get("depends_on", [])
        if "depends_on" in entry or "depends_on" in present.get(name, {}) or not isinstance(needs, list):
            continue
        absent = [needed for needed in needs if needed not in services and needed not in present]
        if absent:
            fitted[name] = {**entry, "depends_on": [needed for needed in needs if needed not in absent]}
            remarks.append(
                f"{name}: depends_on without {', '.join(map(shown_key, absent))}, which is not part of the suite"
            )
    return fitted, remarks


def _in_order(sources: Sequence[ConfigSource], layout: Layout) -> list[ConfigSource]:
    """Return SOURCES in the order in which later ones override, once all of them are files."""

    def place(source: ConfigSource) -> str:
        return source.file if Path(source.file).parent == layout.registry_directory else ""

    return sorted(sources, key=place)


def _fault_of_source(fault: Fault, target: str, files: Mapping[str, str]) -> Fault:
    """Return FAULT of the text to be written as one of the file from which that was imported."""
    if fault.file != target:
        return fault
    name = fault.where.split(".")[1] if fault.where.count(".") else ""
    where = fault.where.removeprefix("services.")
    return Fault(files.get(name, next(iter(files.values()))), 0, where, fault.sentence)
