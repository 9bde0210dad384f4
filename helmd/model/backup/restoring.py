"""What a restore will do on this machine, and what keeps it from that; decided before anything is changed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from helmd.model.backup.manifest import STORE, Manifest, ServiceRef
from helmd.model.counted import counted

_MARGIN = 1 << 30
"""Bytes for Keycloak, two clusters and their write-ahead logs."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RestoreConditions:
    """What was found on the machine. ``free`` is in bytes."""

    helm_version: str
    postgresql: int
    """The newest version installed, 0 without one."""
    free: int
    living: str = ""
    """What shows that the account has a suite, as a sentence; empty without one."""
    unfinished: bool = False
    """Whether a restore of this very archive was interrupted."""
    held_ports: Mapping[int, str] | None = None
    """Ports of the suite that are in use, with the processes."""
    faults: tuple[str, ...] = ()
    """What else is in the way: directories that can't be written, repositories that can't be reached."""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """The steps, and the reasons for which there will be none."""

    steps: tuple[str, ...]
    faults: tuple[str, ...]


def plan_restore(manifest: Manifest, found: RestoreConditions, replace: bool) -> RestorePlan:
    """Return what a restore does, and what is in its way."""
    faults = list(found.faults)
    if _version(manifest.helm_version) > _version(found.helm_version):
        faults.append(
            f"Helm {manifest.helm_version} has made the archive, and this is {found.helm_version}:"
            " install that version or a later one"
        )
    if manifest.postgresql > found.postgresql:
        here = (
            f"PostgreSQL {found.postgresql} is the newest here" if found.postgresql else "PostgreSQL is not installed"
        )
        faults.append(
            f"the databases are of PostgreSQL {manifest.postgresql}, and {here}:"
            f" sudo apt install postgresql-{manifest.postgresql}"
        )
    needed = manifest.size + manifest.database_size + _MARGIN
    if found.free < needed:
        faults.append(f"{needed // _MIB:,} MB are needed, and {found.free // _MIB:,} MB are free")
    if found.living and not (replace or found.unfinished):
        faults.append(f"{found.living}: to replace it, after a backup of it was made, give --replace")
    if not replace:
        faults += [
            f"port {port}, which {_holder_of_port(manifest, port)} needs, is taken by {who}"
            for port, who in sorted((found.held_ports or {}).items())
        ]
    return RestorePlan(tuple(_steps(manifest, found, replace)), tuple(faults))


def _steps(manifest: Manifest, found: RestoreConditions, replace: bool) -> list[str]:
    steps = []
    if found.unfinished:
        steps.append("go on with the restore of this archive that was interrupted")
    elif replace and found.living:
        steps.append("make a backup of the suite that is here, stop it, and move it aside")
    steps.append(f"restore configuration and secrets of {manifest.account} on {manifest.host}")
    steps += [_step(service) for service in manifest.services]
    steps.append("set up the account: PostgreSQL, units, Helm")
    for facts in manifest.databases:
        logs = " (the log store)" if facts.cluster == STORE else ""
        steps.append(
            f"restore the database {facts.name}{logs}: {counted(len(facts.tables), 'table')},"
            f" {counted(sum(facts.tables.values()), 'row')}; and compare them"
        )
    steps.append("start the suite")
    return steps


def _step(service: ServiceRef) -> str:
    if service.saved == "nothing":
        return f"{service.name}: nothing; its directory {service.path} is not in the archive"
    if service.type == "keycloak" and service.saved == "shared":
        return f"{service.name}: unpack the release, and restore what its admin has added"
    environment = ""
    if service.environment is not None:
        packages = counted(len(service.environment.packages), "package")
        environment = f", make its virtual environment again with {packages}"
    if service.saved == "whole":
        return f"{service.name}: restore {service.path} as it was{environment}"
    if service.remote and service.commit:
        return f"{service.name}: clone {service.remote} at {service.commit[:12]}, restore its state{environment}"
    return f"{service.name}: restore its state in {service.path}{environment}"


def _holder_of_port(manifest: Manifest, port: int) -> str:
    return next((service.name for service in manifest.services if service.port == port), "the suite")


def _version(text: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part[:6]) for part in found[0].split(".")) if found else ()
