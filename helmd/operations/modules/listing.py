"""The modules of the suite and those that the catalogue has."""

from helmd.model.api.modules import AvailableModule
from helmd.model.config.toml_tables import parse_toml
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.configuration.load import registry_sources


def available_modules(layout: Layout, suite: Registry) -> tuple[AvailableModule, ...]:
    """Return the modules of the catalogue, in its order. Faults in files are reported where the suite is read."""
    sources, _ = registry_sources(layout)
    found: dict[str, dict[str, str]] = {}
    for source in sources:
        tables, _ = parse_toml(source, [])
        for name, entry in _tables(tables.get("services")).items():
            install = _tables(entry).get("install", {})
            known = found.setdefault(name, {}) if source.catalogue or name in found else {}
            known |= {key: value for key, value in install.items() if isinstance(value, str)}
            if isinstance(description := entry.get("description"), str):
                known["description"] = description
    return tuple(
        AvailableModule(name, known.get("description", name), known["source"], known.get("ref", ""), name in suite)
        for name, known in found.items()
        if "source" in known
    )


def _tables(value: object) -> dict[str, dict[str, object]]:
    """Return the tables in VALUE; other values of a faulty file are ignored."""
    return {name: each for name, each in value.items() if isinstance(each, dict)} if isinstance(value, dict) else {}
