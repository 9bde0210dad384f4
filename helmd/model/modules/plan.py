"""What an update of a module would do, and how that is said. Subjects of commits and requirements are others' text."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from helmd.model.counted import counted
from helmd.model.modules.record import HistoryEntry
from helmd.model.modules.source import COMMIT
from helmd.model.printable import printable

MOST_COMMITS = 100
"""How many commits a plan has."""
_SHOWN = 20
_WIDTH = 200
_YEAR_3000 = 32503680000.0


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit. ``subject`` and ``author`` are printable; ``at`` is when it was written, 0 where that can't be."""

    id: str
    subject: str = ""
    author: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """What an update would do. Sizes are bytes, times seconds."""

    name: str
    before: str
    """The commit that serves."""
    after: str
    ref: str
    behind: int
    """How many commits would be new."""
    commits: tuple[Commit, ...]
    """These, the newest first, `MOST_COMMITS` at most."""
    lost: tuple[Commit, ...]
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


def commits_in(output: bytes) -> tuple[Commit, ...]:
    """Return the commits that git printed as `COMMIT_FORMAT`, with ``-z``."""
    parts = output.decode("utf-8", "replace").split("\0")
    found = []
    for place in range(0, len(parts) - 3, 4):
        commit, at, author, subject = parts[place : place + 4]
        if not COMMIT.match(commit):
            break
        seconds = float(at) if at.isascii() and at.isdigit() and len(at) < 12 else 0.0
        shown = printable(subject.rstrip(), _WIDTH), printable(author.rstrip(), _WIDTH)
        found.append(Commit(commit, *shown, seconds if seconds < _YEAR_3000 else 0.0))
    return tuple(found)


COMMIT_FORMAT = f"%H%x00%at%x00%<({_WIDTH},trunc)%an%x00%<({_WIDTH},trunc)%s"
"""A commit as `git-log(1)` prints it: texts are cut there, since each may be as long as a repository."""


def downtimes_of(history: Sequence[HistoryEntry]) -> tuple[float, ...]:
    """Return the times without the module of those updates that were done."""
    return tuple(each.downtime for each in history if each.action == "update" and each.ok and each.downtime > 0)


def plan_lines(plan: UpdatePlan) -> list[str]:
    """Return the plan as lines of printable text."""
    return [printable(line, _WIDTH) for line in _lines(plan)]


def _lines(plan: UpdatePlan) -> list[str]:
    if plan.nothing:
        return [f"{plan.name} is up to date (commit {plan.before[:12]})."]
    lines = [f"{plan.name}: commit {plan.before[:12]} -> {plan.after[:12]}, {plan.ref or 'default branch'}"]
    if plan.held:
        why = f" ({plan.held_reason})" if plan.held_reason else ""
        lines.append(f"  held{why}: not updated before helmctl modules unhold {plan.name}")
    lines += [f"  refused as it is: {each}" for each in plan.obstacles]
    lines += _commits(plan.commits, plan.behind, "")
    lines += _commits(plan.lost, len(plan.lost), " that it has now would be gone")
    return [*lines, *plan_facts(plan)]


def plan_facts(plan: UpdatePlan) -> list[str]:
    """Return what an update changes besides commits, a line each, not yet printable."""
    lines: list[str] = []
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


def _commits(commits: Sequence[Commit], count: int, what: str) -> list[str]:
    if not commits:
        return []
    more = " or more" if count == len(commits) >= MOST_COMMITS else ""
    lines = [f"    {_commit(each)}" for each in commits]
    return [f"  {counted(count, 'commit')}{more}{what}:", *_some(lines, "    ", count)]


def _commit(commit: Commit) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(commit.at)) if commit.at else "date unknown"
    return f"{commit.id[:12]} {day} {commit.author or 'nobody'}: {commit.subject}"


def _some(lines: list[str], indent: str, count: int = 0) -> list[str]:
    """Return the first of LINES, and how many more there are of COUNT."""
    rest = (count or len(lines)) - _SHOWN
    return [*lines[:_SHOWN], f"{indent}and {rest} more"] if rest > 0 else lines
