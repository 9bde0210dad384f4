"""What an update of a module would do, and how that is said. Subjects of commits and requirements are others' text."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from helmd.model.counted import counted
from helmd.model.modules.record import HistoryEntry
from helmd.model.printable import printable

MOST_COMMITS = 100
"""How many commits a plan has."""
_SHOWN = 20
_WIDTH = 200


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """What an update would do. Sizes are bytes, times seconds."""

    name: str
    before: str
    """The commit that serves."""
    after: str
    ref: str
    commits: tuple[str, ...]
    """Those that would be new, the newest first: short id and subject, `MOST_COMMITS` at most."""
    lost: tuple[str, ...]
    """Those that serve now and would not any more: the ref is older, or its history was rewritten."""
    requirements: tuple[str, ...]
    """Lines of the file of requirements that go (-) and come (+)."""
    migrate: str
    migrate_before: str
    """The command of the version that serves."""
    database: str
    shared_paths: tuple[str, ...]
    """Those that it has not had before."""
    effect: str
    """Whom it touches that the module is stopped meanwhile, as sentences; empty for nobody."""
    held: bool
    held_reason: str
    obstacles: tuple[str, ...]
    """Why it would be refused now, a sentence each, with what to do."""
    need: int
    free: int
    downtimes: tuple[float, ...]
    """How long updates before took during which it did not serve; empty if there was none."""

    @property
    def nothing(self) -> bool:
        return self.before == self.after

    @property
    def downtime(self) -> float | None:
        """The time without the module that is expected; None if there is nothing to go by."""
        return statistics.median(self.downtimes) if self.downtimes else None


def downtimes_of(history: Sequence[HistoryEntry]) -> tuple[float, ...]:
    """The times without the module of those updates that were done."""
    return tuple(each.downtime for each in history if each.action == "update" and each.ok and each.downtime > 0)


def plan_lines(plan: UpdatePlan) -> list[str]:
    """The plan for people, a line each, printable as it is."""
    return [printable(line, _WIDTH) for line in _lines(plan)]


def _lines(plan: UpdatePlan) -> list[str]:
    if plan.nothing:
        return [f"{plan.name} is up to date (commit {plan.before[:12]})."]
    lines = [f"{plan.name}: commit {plan.before[:12]} -> {plan.after[:12]}, {plan.ref or 'default branch'}"]
    if plan.held:
        why = f" ({plan.held_reason})" if plan.held_reason else ""
        lines.append(f"  held{why}: not updated before helmctl modules unhold {plan.name}")
    lines += [f"  refused as it is: {each}" for each in plan.obstacles]
    lines += _commits(plan.commits, "")
    lines += _commits(plan.lost, " that it has now would be gone")
    lines += _some([f"  requirements: {each}" for each in plan.requirements], "  ")
    if plan.migrate or plan.migrate_before:
        changed = f" (was: {plan.migrate_before or 'none'})" if plan.migrate != plan.migrate_before else ""
        lines.append(f"  migration: {plan.migrate or 'none'}{changed}")
    if plan.database:
        lines.append(f"  database: {plan.database}, copied before")
    if plan.shared_paths:
        lines.append(f"  new state: {', '.join(plan.shared_paths)}")
    lines.append(f"  who is affected: {plan.effect or 'no other service'}")
    lines.append(f"  space: {plan.need >> 20:,} MB are needed, {plan.free >> 20:,} MB are free")
    took = "not known yet, as it was not updated before"
    if plan.downtime is not None:
        took = f"about {plan.downtime:.1f} s, by {counted(len(plan.downtimes), 'update')} before"
    lines.append(f"  time without the module: {took}")
    return lines


def _commits(commits: Sequence[str], what: str) -> list[str]:
    if not commits:
        return []
    more = " or more" if len(commits) >= MOST_COMMITS else ""
    return [f"  {counted(len(commits), 'commit')}{more}{what}:", *_some([f"    {each}" for each in commits], "    ")]


def _some(lines: list[str], indent: str) -> list[str]:
    """The first of LINES, and how many more there are."""
    rest = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f"{indent}and {rest} more"] if rest > 0 else lines
