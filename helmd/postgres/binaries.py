"""The PostgreSQL programs that Debian's packages install, a directory for each major version."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helmd.model.errors import NotSetUpError

INSTALLED = Path("/usr/lib/postgresql")
"""Where Debian's postgresql-N packages keep their versions."""

UPGRADE_COMMAND = "helmctl postgres upgrade"
"""The command that upgrades clusters to the newest version installed."""

_NEEDED = ("postgres", "initdb", "pg_ctl")


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one major version."""

    major: int
    directory: Path

    def program(self, name: str) -> Path:
        return self.directory / name

    def has(self, *names: str) -> bool:
        return all((self.directory / name).is_file() for name in names)


def installed(root: Path = INSTALLED) -> Sequence[Binaries]:
    """Return every version with a server installed, oldest first."""
    found = [
        Binaries(int(place.name), place / "bin")
        for place in (root.iterdir() if root.is_dir() else ())
        if place.name.isascii() and place.name.isdigit()
    ]
    return sorted((each for each in found if each.has(*_NEEDED)), key=lambda each: each.major)


def newest(root: Path = INSTALLED) -> Binaries:
    """Return the newest version installed. Raises NotSetUpError when there is none."""
    found = installed(root)
    if not found:
        raise NotSetUpError("PostgreSQL's server is not installed", hint="sudo apt install postgresql")
    return found[-1]


def major_of(directory: Path) -> int | None:
    """Return the major version of a cluster, from its PG_VERSION, or None if there is no cluster."""
    try:
        text = (directory / "PG_VERSION").read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        text = ""
    if not text.isdigit():
        raise NotSetUpError(
            f"{directory / 'PG_VERSION'} names no version that is known",
            hint="Restore the directory from a backup, or move it away and run helmctl setup.",
        )
    return int(text)


def binaries_of(directory: Path, root: Path = INSTALLED) -> Binaries:
    """Return the programs that a cluster needs.

    Raises NotSetUpError, with a hint, when cluster or programs are missing.
    """
    major = major_of(directory)
    if major is None:
        raise NotSetUpError(f"there is no PostgreSQL cluster in {directory}", hint="Run: helmctl setup")
    for each in installed(root):
        if each.major == major:
            return each
    raise NotSetUpError(
        f"the cluster in {directory} needs PostgreSQL {major}, which is not installed",
        hint=f"sudo apt install postgresql-{major}; where the release no longer has it, add the package archive of"
        f" the PostgreSQL project or of the release before. Then move it to a newer version: {UPGRADE_COMMAND}",
    )
