"""Replies of ``/api/modules``."""

from dataclasses import dataclass, field

from helmd.model.json_fields import described


@dataclass(frozen=True, slots=True)
class AvailableModule:
    """A module that the catalogue knows how to install."""

    name: str = field(metadata=described("its name", example="codex"))
    description: str = field(metadata=described("what it is", example="Codex: companies, contacts, assets"))
    source: str = field(metadata=described("the git repository that it comes from"))
    ref: str = field(metadata=described("the branch, tag or commit; empty for the default branch", example=""))
    present: bool = field(metadata=described("whether it is part of the suite", example=False))
