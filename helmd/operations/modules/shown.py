"""The records of all modules, for those who show them."""

from collections.abc import Iterator

from helmd.model.api.modules import ModuleBody, ModuleHistoryBody, ModuleVersionBody
from helmd.model.errors import HelmError, UsageError
from helmd.model.jobs.replies import time_of
from helmd.model.layout import Layout
from helmd.model.modules.record import ModuleRecord
from helmd.model.printable import printable
from helmd.modules.records import installed_names, read_record


def shown_modules(layout: Layout) -> tuple[ModuleBody, ...]:
    """All modules that were installed, by name. Blocks."""
    return tuple(_modules(layout))


def not_installed(name: str) -> UsageError:
    """The error about NAME where no such module was installed."""
    return UsageError(
        f"{printable(name, 60)} is not a module that was installed from git",
        hint="What is installed: helmctl modules list",
    )


def module_names(layout: Layout) -> list[str]:
    """The names of all modules that were installed. Blocks."""
    return installed_names(layout)


def _modules(layout: Layout) -> Iterator[ModuleBody]:
    for name in installed_names(layout):
        try:
            record = read_record(layout.module(name))
        except HelmError as error:
            yield ModuleBody(name, "", "", "", "", False, "", False, (), (), error.sentence)
        else:
            if record is not None:
                yield module_body(record)


def module_body(record: ModuleRecord) -> ModuleBody:
    """RECORD as a body."""
    versions = tuple(
        ModuleVersionBody(each.id, each.commit, each.state, time_of(each.made_at), each.detail)
        for each in reversed(record.versions)
    )
    history = tuple(
        ModuleHistoryBody(time_of(each.at), each.action, each.sentence, each.by, each.ok, each.downtime)
        for each in reversed(record.history)
    )
    return ModuleBody(
        record.name, record.source, record.ref, record.commit, record.active, record.held, record.held_reason,
        record.trusted, versions, history, "",
    )  # fmt: skip
