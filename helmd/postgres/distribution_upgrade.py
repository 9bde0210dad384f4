"""Whether the server version of a cluster is still installed and provided after an upgrade of the distribution."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from helmd.postgres.binaries import UPGRADE_COMMAND

_APT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Concern:
    """A problem of a cluster. ``broken`` says that it can't be started."""

    sentence: str
    hint: str
    broken: bool = False


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """The state of a server package in apt. ``source`` is False if no configured archive provides it."""

    installed: bool
    source: bool
    leaving: bool
    """The next full-upgrade or autoremove would remove it."""


def verdict(major: int, versions: Sequence[int], package: PackageFacts | None) -> Sequence[Concern]:
    """Return the problems of a cluster of version MAJOR; PACKAGE is None if apt does not manage packages here."""
    if major not in versions:
        return (
            Concern(
                f"the cluster needs PostgreSQL {major}, which is not installed",
                f"sudo apt install postgresql-{major} from this or the earlier release, then: {UPGRADE_COMMAND}",
                broken=True,
            ),
        )
    found = []
    if versions[-1] > major:
        found.append(
            Concern(
                f"the cluster is of PostgreSQL {major} while {versions[-1]} is installed",
                f"Move it while both are there: {UPGRADE_COMMAND}",
            )
        )
    if package is None:
        return found
    name = f"postgresql-{major}"
    hold = f"sudo apt-mark manual {name}; then install the newer PostgreSQL and run: {UPGRADE_COMMAND}"
    if package.installed and not package.source:
        found.append(Concern(f"{name} is in no configured package archive any more: it gets no security updates", hold))
    if package.leaving:
        found.append(Concern(f"the next upgrade or autoremove would remove {name}, without which it can't start", hold))
    return found


def package_facts(name: str) -> PackageFacts | None:
    """Ask dpkg and apt, which changes nothing; return None where they do not manage packages."""
    status = _output(["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", name])
    policy = _output(["apt-cache", "policy", name])
    plan = _output(["apt-get", "--simulate", "--quiet", "--auto-remove", "dist-upgrade"])
    if policy is None or plan is None:
        return None
    # Without any list of an archive (a fresh image, say) nothing can be said about sources.
    source = _names_archive(policy) or not _names_archive(_output(["apt-cache", "policy"]) or "")
    leaving = any(line.split()[1:2] == [name] for line in plan.splitlines() if line.startswith("Remv "))
    return PackageFacts((status or "").startswith("ii"), source, leaving)


def candidate(name: str) -> str | None:
    """Return the version of a package that apt would install, or None where apt doesn't know."""
    lines = (line.split() for line in (_output(["apt-cache", "policy", name]) or "").splitlines())
    return next((words[1] for words in lines if words[:1] == ["Candidate:"] and words[1:] != ["(none)"]), None)


def _names_archive(policy: str) -> bool:
    """Return whether a table of apt-cache(8) policy has a line "PRIORITY ARCHIVE" that is not dpkg's own record."""
    lines = (line.split() for line in policy.splitlines() if line.startswith(" "))
    return any(len(words) > 2 and words[0].lstrip("-").isdigit() and "/" in words[1] for words in lines)


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_APT_SECONDS,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
