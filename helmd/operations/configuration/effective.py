"""The configuration in force: a part that has faults stays as it was when it last had none."""

from dataclasses import dataclass, field, replace

from helmd.model.config.settings import Settings, read_settings_files
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.layout import Layout
from helmd.model.suite.composition import whole_suite
from helmd.model.suite.effective import Refused, read_effective, with_missing
from helmd.model.suite.service import Registry
from helmd.operations.configuration.load import (
    Sources,
    configuration_of,
    load_settings,
    load_suite,
    read_sources,
    registry_sources,
)


@dataclass(frozen=True, slots=True)
class Effective:
    """The configuration in force; ``faults`` are those of the present files."""

    settings: Settings
    registry: Registry
    faults: tuple[Fault, ...] = ()
    refused: Refused = field(default_factory=Refused)


def load_effective(layout: Layout) -> Effective:
    """Return the configuration in force.

    Raises ConfigurationError only for faults in Helm's settings, if none without faults were saved.
    """
    try:
        settings = load_settings(layout)
        return Effective(settings, load_suite(layout, settings))
    except ConfigurationError:
        # Imported here: only faulty files need it.
        from helmd.operations.configuration.last_good import read_last_good

        before = read_last_good(layout)
    settings, faults = _settings(layout, before)
    sources, unread = registry_sources(layout)
    found = read_effective(sources, unread, before.registry if before else (), settings.taken_ports())
    return Effective(settings, whole_suite(found.registry, settings), (*faults, *found.faults), found.refused)


def save_faultless(layout: Layout) -> None:
    """Save the sources as the last good ones; of those that have faults now, keep the saved ones."""
    from helmd.operations.configuration.last_good import read_last_good, save_last_good

    before = read_last_good(layout)
    sources, unread = registry_sources(layout)
    try:
        newest = read_sources(layout)
        if newest == before:
            return
        settings = load_settings(layout)
        load_suite(layout, settings)
        save_last_good(layout, newest)
        return
    except ConfigurationError as error:
        faulty = {fault.file for fault in (*unread, *error.faults)}
    if before is None:
        return
    known = {source.file: source for source in before.registry}
    merged = [known.get(source.file, source) if source.file in faulty else source for source in sources]
    mixed = replace(before, registry=tuple(with_missing(merged, faulty, before.registry)))
    try:
        configuration_of(mixed)
    except ConfigurationError:
        # The present files and the saved ones do not fit together.
        return
    save_last_good(layout, mixed)


def _settings(layout: Layout, before: Sources | None) -> tuple[Settings, tuple[Fault, ...]]:
    try:
        return load_settings(layout), ()
    except ConfigurationError as error:
        if before is None:
            raise
        try:
            return read_settings_files(before.settings), error.faults
        except ConfigurationError:
            raise error from None
