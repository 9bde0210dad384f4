"""Reply of ``GET /api/apps``."""

from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.json_fields import described


@dataclass(frozen=True, slots=True)
class AppBody:
    """A program of the machine that Helm or the suite needs."""

    name: str = field(metadata=described("which one", example="postgresql"))
    title: str = field(metadata=described("its name for people", example="PostgreSQL"))
    package: str | None = field(
        metadata=described("the package of the distribution that it is from; null for none", example="postgresql-15")
    )
    version: str | None = field(
        metadata=described("the version that is installed; null if there is none", example="15.13-0+deb12u1")
    )
    update: str | None = field(
        metadata=described("the version that would be installed; null if none waits, or that is not known")
    )
    security: bool = field(metadata=described("whether the update comes from a security archive", example=False))
    required: bool = field(metadata=described("whether Helm or a service does not work without it", example=True))
    needed_by: tuple[str, ...] = field(metadata=described("who needs it", example=["helm", "codex"]))
    detail: str = field(metadata=described("what else is known, as a sentence; may be empty", example=""))
    command: str = field(
        metadata=described("the command that installs or updates it; empty if nothing is to be done", example="")
    )


@dataclass(frozen=True, slots=True)
class AppsReply:
    """What of this machine the suite depends on."""

    apps: tuple[AppBody, ...] = field(metadata=described("the important ones first, then packages by name"))
    listed_at: datetime | None = field(
        metadata=described("when the lists of packages were fetched; null where apt does not say, or not yet")
    )
    outdated: tuple[str, ...] | None = field(
        metadata=described(
            "services that still run with files that were replaced since they started (needrestart); null where that is"
            " not known",
            example=["keycloak"],
        )
    )
    reboot_required: bool = field(metadata=described("whether an update waits for a reboot", example=False))
