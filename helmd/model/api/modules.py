"""Replies of ``/api/modules``."""

from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.api.jobs import REASON
from helmd.model.json_fields import described
from helmd.model.modules.record import VersionState


@dataclass(frozen=True, slots=True)
class AvailableModule:
    """A module that the catalogue knows how to install."""

    name: str = field(metadata=described("its name", example="codex"))
    description: str = field(metadata=described("what it is", example="Codex: companies, contacts, assets"))
    source: str = field(metadata=described("the git repository that it comes from"))
    ref: str = field(metadata=described("the branch, tag or commit; empty for the default branch", example=""))
    present: bool = field(metadata=described("whether it is part of the suite", example=False))


@dataclass(frozen=True, slots=True)
class ModuleVersionBody:
    """One version of a module."""

    id: str = field(metadata=described("unique for the module", example="20261128T221502Z-0123456789ab"))
    commit: str = field(metadata=described("the commit that it was made of"))
    state: VersionState = field(metadata=described("kept: it served before; failed: not built, or rolled back"))
    made_at: datetime = field(metadata=described("when it was made"))
    detail: str = field(metadata=described("why it failed; else empty", example=""))


@dataclass(frozen=True, slots=True)
class ModuleHistoryBody:
    """An operation on a module, and its result."""

    at: datetime = field(metadata=described("when"))
    action: str = field(metadata=described("what", example="install"))
    sentence: str = field(metadata=described("the result, for people"))
    by: str = field(metadata=described("who did it", example="hive"))
    succeeded: bool = field(metadata=described("whether it was done"))
    downtime: float = field(metadata=described("seconds for which the module did not serve", example=0.0))


@dataclass(frozen=True, slots=True)
class ModuleBody:
    """A module that was installed from git."""

    name: str = field(metadata=described("its name", example="codex"))
    source: str = field(metadata=described("its git repository; empty where its record can't be read"))
    ref: str = field(metadata=described("the branch, tag or commit that it follows; empty for the default branch"))
    commit: str = field(metadata=described("the commit of the active version; empty for none"))
    active: str = field(metadata=described("the id of the active version; empty for none"))
    held: bool = field(metadata=described("whether updates leave it alone"))
    held_reason: str = field(metadata=described("why; may be empty"))
    trusted: bool = field(metadata=described("whether it was installed although its unit guards nothing"))
    versions: tuple[ModuleVersionBody, ...] = field(metadata=described("the newest first"))
    history: tuple[ModuleHistoryBody, ...] = field(metadata=described("the newest first"))
    trouble: str = field(metadata=described("why its record can't be read; empty if it can", example=""))
    behind_by: int | None = field(
        default=None,
        metadata=described("how many commits it is behind what it follows; null where that is not known", example=2),
    )
    checked_at: datetime | None = field(
        default=None, metadata=described("when it was last looked for an update; null for never")
    )
    check_trouble: str = field(
        default="", metadata=described("why that look found nothing out; empty if it did", example="")
    )


@dataclass(frozen=True, slots=True)
class PlannedCommitBody:
    """A commit. Its texts are of those who wrote it."""

    id: str = field(metadata=described("its id"))
    subject: str = field(metadata=described("its first line", example="Show contacts by company"))
    author: str = field(metadata=described("who wrote it, by what it says", example="Ada Lovelace"))
    at: datetime | None = field(metadata=described("when it was written, by what it says; null where that can't be"))


@dataclass(frozen=True, slots=True)
class UpdatePlanBody:
    """What an update would do. Sizes are bytes."""

    before: str = field(metadata=described("the commit that served when the plan was made"))
    after: str = field(metadata=described("the commit that would serve"))
    ref: str = field(metadata=described("the branch, tag or commit; empty for the default branch", example=""))
    behind_by: int = field(metadata=described("how many commits would be new", example=1))
    commits: tuple[PlannedCommitBody, ...] = field(metadata=described("the newest 100 of these"))
    lost: tuple[PlannedCommitBody, ...] = field(metadata=described("those that serve and would be gone, 100 at most"))
    requirements: tuple[str, ...] = field(
        metadata=described("lines of the file of requirements that go (-) and come (+)", example=["+flask==3.1.0"])
    )
    migrate: str = field(metadata=described("the command that migrates its data; empty for none", example=""))
    migrate_before: str = field(metadata=described("that of the version that serves", example=""))
    database: str = field(
        metadata=described("its database, which is copied before; empty for none", example="codex_db")
    )
    shared_paths: tuple[str, ...] = field(metadata=described("state that it has not had before", example=["uploads"]))
    effect: str = field(metadata=described("whom it touches while it is stopped; empty for nobody", example=""))
    held: bool = field(metadata=described("whether it was held"))
    obstacles: tuple[str, ...] = field(metadata=described("why it would be refused, a sentence each"))
    bytes_needed: int = field(metadata=described("space that it takes meanwhile", example=9437184))
    bytes_free: int = field(metadata=described("space that is free", example=19327352832))
    downtime: float | None = field(
        metadata=described("seconds for which it is expected not to serve; null without an update before", example=4.2)
    )
    downtime_of: int = field(metadata=described("the number of updates that this rests on", example=3))


@dataclass(frozen=True, slots=True)
class ModulePlanReply:
    """What is known of the update of a module."""

    name: str = field(metadata=described("the module", example="codex"))
    checked_at: datetime | None = field(metadata=described("when it was last looked for an update; null for never"))
    trouble: str = field(metadata=described("why that look made no plan; empty if it did", example=""))
    made_at: datetime | None = field(metadata=described("when the plan was made; null without one"))
    stale: str = field(
        metadata=described("why an update now would do something else; empty if not known to", example="")
    )
    plan: UpdatePlanBody | None = field(metadata=described("null if none was made"))
    text: tuple[str, ...] = field(metadata=described("the plan for people, a line each"))


@dataclass(frozen=True, slots=True)
class ModulesReply:
    """The modules of the suite."""

    modules: tuple[ModuleBody, ...] = field(metadata=described("those that were installed from git, by name"))
    available: tuple[AvailableModule, ...] = field(metadata=described("those that the catalogue has"))


@dataclass(frozen=True, slots=True)
class InstallModuleBody:
    """A module to be installed."""

    source: str = field(
        metadata=described(
            "the URL of its git repository, or its name in the catalogue", example="codex", minLength=1, maxLength=2000
        )
    )
    ref: str = field(default="", metadata=described("this branch, tag or commit", maxLength=250))
    name: str = field(default="", metadata=described("the name of the service; else by the URL", maxLength=50))
    dry_run: bool = field(default=False, metadata=described("only fetch and check it; the job's log says the plan"))
    reason: str = field(default="", metadata=REASON)


@dataclass(frozen=True, slots=True)
class UpdateModuleBody:
    """How a module is to be updated."""

    ref: str = field(
        default="", metadata=described("follow this branch, tag or commit; empty for what it follows", maxLength=250)
    )
    discard_changes: bool = field(
        default=False, metadata=described("leave changes of its files behind, with the version before")
    )
    dry_run: bool = field(default=False, metadata=described("only fetch and check it; the job's log says the plan"))
    planned: str = field(
        default="",
        metadata=described(
            "the commit of the plan that was agreed to; another one is refused", pattern="^([0-9a-f]{40})?$"
        ),
    )
    reason: str = field(default="", metadata=REASON)


@dataclass(frozen=True, slots=True)
class PlanModuleBody:
    """Which update of a module is to be planned."""

    ref: str = field(
        default="", metadata=described("to this branch, tag or commit; empty for what it follows", maxLength=250)
    )
    reason: str = field(default="", metadata=REASON)


@dataclass(frozen=True, slots=True)
class ModulePlanQuery:
    """Of which update the plan is."""

    ref: str = field(
        default="",
        metadata=described(
            "to this branch, tag or commit, if planned lately; empty for what the module follows",
            maxLength=250,
        ),
    )


@dataclass(frozen=True, slots=True)
class CheckModulesBody:
    """Which modules are to be looked at for updates."""

    modules: tuple[str, ...] = field(
        default=(), metadata=described("their names; empty for all", example=["codex"], maxItems=200)
    )
    reason: str = field(default="", metadata=REASON)


@dataclass(frozen=True, slots=True)
class RollbackModuleBody:
    """How a module is to go back to the version that served before."""

    with_data: bool = field(
        metadata=described("whether its data goes back as well, to when that version ended to serve")
    )
    reason: str = field(default="", metadata=REASON)


@dataclass(frozen=True, slots=True)
class HoldModuleBody:
    """Whether updates leave a module alone."""

    held: bool = field(default=True, metadata=described("false: it may be updated again"))
    reason: str = field(default="", metadata=REASON)


@dataclass(frozen=True, slots=True)
class RemoveModuleBody:
    """How a module is to be removed."""

    keep_data: bool = field(default=False, metadata=described("keep its database, its state and its secrets"))
    reason: str = field(default="", metadata=REASON)
