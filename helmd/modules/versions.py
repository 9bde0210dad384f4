"""Creating, linking and removing the directories of a module's versions, without executing anything in them.

Their content is not trusted, so directories are opened one after the other, and links are not followed.
"""

import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from helmd.files.beneath import opened_directory
from helmd.files.durable import fsync_directory
from helmd.model.errors import ModuleError
from helmd.model.layout import ModulePlaces
from helmd.modules.snapshot import remove_tree


def make_directories(places: ModulePlaces) -> None:
    """Create the directories of a module, private to the account. Raises OSError."""
    for directory in (places.root, places.versions, places.shared, places.cache, places.state, places.logs):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)


def make_version(places: ModulePlaces, version: str) -> Path:
    """Create the directory of a new version and return it. Raises OSError."""
    directory = places.version(version)
    directory.mkdir(mode=0o700)
    fsync_directory(places.versions)
    return directory


def link_shared(places: ModulePlaces, version: str, shared: Sequence[str]) -> None:
    """Replace the SHARED paths of a version by links to the module's state.

    Existing content at such a path becomes the state if there is none yet. A shared path without suffix is created as a
    directory. Raises ModuleError.
    """
    directory = places.version(version)
    for path in shared:
        try:
            _link_one(places, directory, path)
        except OSError as problem:
            raise ModuleError(
                f"{path} (shared_paths) could not be linked into version {version}: {problem.filename}:"
                f" {problem.strerror}"
            ) from None


def _link_one(places: ModulePlaces, directory: Path, path: str) -> None:
    place, state = directory / path, places.shared / path
    target = "/".join([".."] * (path.count("/") + 2) + ["shared", path])
    with (
        opened_directory(place.parent, directory) as folder,
        opened_directory(state.parent, places.shared) as holder,
    ):
        try:
            facts = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            facts = None
        if facts is not None and stat.S_ISLNK(facts.st_mode):
            if os.readlink(place.name, dir_fd=folder) != target:
                raise OSError(0, "is a symbolic link", str(place))
            facts = None
            os.unlink(place.name, dir_fd=folder)
        if not _exists(holder, state.name):
            if facts is not None:
                os.rename(place.name, state.name, src_dir_fd=folder, dst_dir_fd=holder)
                facts = None
            elif "." not in state.name:
                os.mkdir(state.name, 0o700, dir_fd=holder)
        if facts is not None:
            if stat.S_ISDIR(facts.st_mode):
                shutil.rmtree(place.name, dir_fd=folder)
            else:
                os.unlink(place.name, dir_fd=folder)
        os.symlink(target, place.name, dir_fd=folder)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def unlinked_state(places: ModulePlaces, version: str, shared: Sequence[str]) -> list[str]:
    """Return those of the SHARED paths at which a version has files of its own: its program replaced the link."""
    found = []
    for path in shared:
        place = places.version(version) / path
        with suppress(OSError), opened_directory(place.parent) as folder:
            if not stat.S_ISLNK(os.stat(place.name, dir_fd=folder, follow_symlinks=False).st_mode):
                found.append(path)
    return found


def keep_unlinked_state(places: ModulePlaces, version: str, shared: Sequence[str]) -> list[str]:
    """Move files by which a version's program has replaced links to the module's state; return their paths.

    The service must not be running. Raises OSError.
    """
    moved = []
    for path in unlinked_state(places, version, shared):
        place, state = places.version(version) / path, places.shared / path
        with (
            opened_directory(place.parent) as folder,
            opened_directory(state.parent, places.shared) as holder,
        ):
            if _exists(holder, state.name):
                if stat.S_ISDIR(os.stat(state.name, dir_fd=holder, follow_symlinks=False).st_mode):
                    shutil.rmtree(state.name, dir_fd=holder)
                else:
                    os.unlink(state.name, dir_fd=holder)
            os.rename(place.name, state.name, src_dir_fd=folder, dst_dir_fd=holder)
        _link_one(places, places.version(version), path)
        moved.append(path)
    return moved


def remove_version(places: ModulePlaces, version: str) -> None:
    """Remove a version's directory and files, also those made inaccessible by its program."""
    remove_tree(places.version(version))
    for file in (places.declared_by(version), places.versions / f"{version}.constraints"):
        file.unlink(missing_ok=True)
