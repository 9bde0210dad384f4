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
    state: VersionState = field(metadata=described("kept: it served before; failed: not built, or taken back"))
    made_at: datetime = field(metadata=described("when it was made"))
    detail: str = field(metadata=described("why it failed; else empty", example=""))


@dataclass(frozen=True, slots=True)
class ModuleHistoryBody:
    """Something that was done to a module, and what came of it."""

    at: datetime = field(metadata=described("when"))
    action: str = field(metadata=described("what", example="install"))
    sentence: str = field(metadata=described("what came of it, for people"))
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
