"""The records of all modules, for display."""

from collections.abc import Iterator

from helmd.model.api.modules import (
    ModuleBody,
    ModuleHistoryBody,
    ModulePlanReply,
    ModuleVersionBody,
    PlannedCommitBody,
    UpdatePlanBody,
)
from helmd.model.errors import HelmError, UsageError
from helmd.model.jobs.replies import time_of
from helmd.model.layout import Layout
from helmd.model.modules.check import UpdateCheck, behind_of, stale_reason
from helmd.model.modules.plan import Commit, UpdatePlan, plan_lines
from helmd.model.modules.record import ModuleRecord
from helmd.model.printable import printable
from helmd.modules.records import installed_names, places_of, read_check, read_record


def shown_modules(layout: Layout) -> tuple[ModuleBody, ...]:
    """Return all modules that were installed, by name. Blocks."""
    return tuple(_modules(layout))


def not_installed(name: str) -> UsageError:
    """Return the error about NAME where no such module was installed."""
    return UsageError(
        f"{printable(name, 60)} is not a module that was installed from git",
        hint="What is installed: helmctl modules list",
    )


def module_names(layout: Layout) -> list[str]:
    """Return the names of all modules that were installed. Blocks."""
    return installed_names(layout)


def _modules(layout: Layout) -> Iterator[ModuleBody]:
    for name in installed_names(layout):
        try:
            record = read_record(layout.module(name))
        except HelmError as error:
            yield ModuleBody(name, "", "", "", "", False, "", False, (), (), error.sentence)
        else:
            if record is not None:
                yield module_body(record, read_check(layout.module(name)))


def shown_plan(layout: Layout, name: str, ref: str = "") -> ModulePlanReply:
    """Return what is known of the update of a module to REF; empty for what it follows. Blocks.

    Raises UsageError, RecordError.
    """
    places = places_of(layout, name)
    record = read_record(places)
    if record is None:
        raise not_installed(name)
    other = record.other_ref(ref)
    return plan_reply(record, read_check(places, other), other)


def plan_reply(record: ModuleRecord, check: UpdateCheck | None, ref: str = "") -> ModulePlanReply:
    """Return CHECK, of REF, as a body; an empty REF is the one that the module follows."""
    if check is None:
        return ModulePlanReply(record.name, None, "", None, "", None, ())
    plan = check.plan
    return ModulePlanReply(
        record.name,
        time_of(check.checked_at),
        check.trouble,
        time_of(check.made_at) if plan is not None else None,
        stale_reason(check, record, ref),
        plan_body(plan) if plan is not None else None,
        tuple(plan_lines(plan)) if plan is not None else (),
    )


def plan_body(plan: UpdatePlan) -> UpdatePlanBody:
    """Return PLAN as a body."""
    return UpdatePlanBody(
        before=plan.before,
        after=plan.after,
        ref=plan.ref,
        behind_by=plan.behind,
        commits=tuple(map(_commit, plan.commits)),
        lost=tuple(map(_commit, plan.lost)),
        requirements=plan.requirements,
        migrate=plan.migrate,
        migrate_before=plan.migrate_before,
        database=plan.database,
        shared_paths=plan.shared_paths,
        effect=plan.effect,
        held=plan.held,
        obstacles=plan.obstacles,
        bytes_needed=plan.need,
        bytes_free=plan.free,
        downtime=plan.downtime,
        downtime_of=len(plan.downtimes),
    )


def _commit(commit: Commit) -> PlannedCommitBody:
    return PlannedCommitBody(commit.id, commit.subject, commit.author, time_of(commit.at) if commit.at else None)


def module_body(record: ModuleRecord, check: UpdateCheck | None = None) -> ModuleBody:
    """Return RECORD as a body, and what CHECK knows of its updates."""
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
        record.trusted, versions, history, "", behind_of(check, record),
        time_of(check.checked_at) if check is not None else None, check.trouble if check is not None else "",
    )  # fmt: skip
