"""The tree of a commit, before anything of it is on disk: whether it can be checked out and stay in its directory."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MAX_FILES = 100_000
MAX_LISTING = 64 << 20
"""Bytes of a listing that are read."""
MAX_TARGET = 4096
_MAX_DEPTH, _MAX_NAME = 60, 255
_MAX_LINKS = 40
_SHOWN = 5
_ENTRY = re.compile(rb"([0-7]{6}) (blob|commit|tree) ([0-9a-f]{40,64}) +(-|[0-9]{1,15})\t(.+)\Z", re.DOTALL)
LINK, SUBMODULE = "120000", "160000"
_MODES = ("100644", "100755", "100664", LINK, SUBMODULE)
_GIT = re.compile(r"\.git|git~[0-9]+", re.IGNORECASE)


class TreeEntry(NamedTuple):
    """A file, symbolic link or submodule of a commit; ``size`` in bytes."""

    path: str
    mode: str
    object: str
    size: int


@dataclass(frozen=True, slots=True)
class Tree:
    """All of a commit's entries by path, with the targets of its symbolic links."""

    entries: Mapping[str, TreeEntry]
    targets: Mapping[str, str]

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries.values())


def read_listing(content: bytes) -> list[TreeEntry]:
    """Return the entries in the output of ``git ls-tree -r -z -l``. Raises ValueError for anything else."""
    if len(content) > MAX_LISTING:
        raise ValueError("its listing is too large")
    found = []
    for line in content.split(b"\0")[:-1]:
        entry = _ENTRY.match(line)
        if entry is None:
            raise ValueError("its listing can't be read")
        mode, _, identifier, size, path = entry.groups()
        number = 0 if size == b"-" else int(size)
        found.append(TreeEntry(path.decode("utf-8", "surrogateescape"), mode.decode(), identifier.decode(), number))
        if len(found) > MAX_FILES:
            raise ValueError(f"it has more than {MAX_FILES:,} files")
    return found


def tree_faults(
    tree: Tree, shared: Collection[str], own: Collection[str], max_size: int, submodules: bool
) -> list[str]:
    """Return why TREE can't be a version of a module, a sentence each.

    SHARED paths become links to the module's state; OWN names at its top are made by Helm.
    """
    faults = [fault for entry in tree.entries.values() if (fault := _entry_fault(entry, own, submodules))]
    if tree.size > max_size:
        faults.append(f"its files have {tree.size >> 20:,} MB; at most {max_size >> 20:,} MB are allowed")
    for path in tree.targets:
        if not faults and not _stays(tree, path, shared):
            faults.append(
                f"the symbolic link {shown_path(path)} leads out of the tree ({shown_path(tree.targets[path])})"
            )
    for path in shared:
        for above in _prefixes(path):
            if above in tree.targets:
                faults.append(f"{shown_path(above)} is a symbolic link, but {path} is to be state (shared_paths)")
    more = len(faults) - _SHOWN
    return [*faults[:_SHOWN], f"and {more:,} more"] if more > 0 else faults


def shown_path(path: str) -> str:
    """Return a path as it may be printed."""
    word = path if path.isascii() and path.isprintable() else ascii(path)[1:-1]
    return word if len(word) <= 100 else word[:97] + "..."


def _entry_fault(entry: TreeEntry, own: Collection[str], submodules: bool) -> str:
    parts = entry.path.split("/")
    shown = shown_path(entry.path)
    if any(part in ("", ".", "..") or _GIT.fullmatch(part) for part in parts):
        return f"it has a path that no tree may have: {shown}"
    if len(parts) > _MAX_DEPTH or any(len(part.encode("utf-8", "surrogateescape")) > _MAX_NAME for part in parts):
        return f"the path {shown} is too deep or too long"
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in entry.path):
        return f"the path {shown} has a control character"
    if entry.mode not in _MODES:
        return f"{shown} is of an unknown kind ({entry.mode})"
    if entry.mode == SUBMODULE and not submodules:
        return f"{shown} is a submodule; to install it without that, set install.submodules"
    if entry.mode == LINK and entry.size > MAX_TARGET:
        return f"the symbolic link {shown} is too long"
    if parts[0] in own:
        return f"{shown} is where Helm puts files of its own"
    return ""


def _prefixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _stays(tree: Tree, path: str, shared: Collection[str]) -> bool:
    """Return whether following the link at PATH ends inside the tree, whatever other links are on the way."""
    above = path.split("/")[:-1]
    todo = tree.targets[path].split("/")
    if tree.targets[path].startswith("/") or "\0" in tree.targets[path] or not tree.targets[path]:
        return False
    at, links = above, 1
    while todo:
        part = todo.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            # Above a shared path is not the tree, but where the module's state is.
            if not at or any(_within("/".join(at), place) for place in shared):
                return False
            at = at[:-1]
            continue
        at = [*at, part]
        target = tree.targets.get("/".join(at))
        if target is not None:
            links += 1
            if links > _MAX_LINKS or target.startswith("/"):
                return False
            todo = target.split("/") + todo
            at = at[:-1]
    return True


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")
