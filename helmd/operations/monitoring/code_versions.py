"""The versions of the code of services, from the records of installed modules, and from checkouts."""

import asyncio
import contextlib
import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from helmd import __version__
from helmd.health.thread_pool import ThreadPool
from helmd.model.errors import HelmError
from helmd.model.layout import Layout
from helmd.model.modules.check import behind_of
from helmd.model.suite.names import HELM_SERVICE
from helmd.model.suite.service import Registry, Service
from helmd.modules.records import read_check, read_record

_KEPT_SECONDS = 10.0
_WAIT_SECONDS = 1.0
"""Maximum time in seconds that a page waits; the next one has the result."""
_DIGITS = 12
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MOST_BYTES = 4 << 20
"""Maximum number of bytes read of a file of a checkout; packed-refs is the largest."""


@dataclass(frozen=True, slots=True)
class CodeVersion:
    """``text`` is an abbreviated commit, or the version of the package. ``ref`` is the branch or tag of a module."""

    kind: Literal["module", "checkout", "package"]
    text: str
    ref: str = ""
    behind: int | None = None
    """The number of commits that a module is behind; None if unknown."""


def code_version(layout: Layout, service: Service) -> CodeVersion | None:
    """Return the version of SERVICE, or None if unknown. Blocks."""
    if service.name == HELM_SERVICE:
        return CodeVersion("package", __version__)
    if not service.path or service.external:
        return None
    directory = layout.resolve(service.path)
    places = layout.module_of(directory)
    if places is None:
        commit = commit_of(directory)
        return CodeVersion("checkout", commit) if commit else None
    try:
        record = read_record(places)
    except HelmError:
        return None
    version = record.version(directory.name) if record is not None else None
    if record is None or version is None:
        return None
    behind = behind_of(read_check(places), record) if version.id == record.active else None
    return CodeVersion("module", version.commit[:_DIGITS], record.ref, behind)


class CodeVersions:
    """The versions of all services. Files are read in a separate thread, since a file system may hang."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._threads = ThreadPool(1)
        self._found: Mapping[str, CodeVersion] = {}
        self._read_at = -_KEPT_SECONDS

    async def of(self, suite: Registry) -> Mapping[str, CodeVersion]:
        """Return the versions by service, at most `_KEPT_SECONDS` old."""
        if time.monotonic() - self._read_at >= _KEPT_SECONDS:
            self._read_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_SECONDS):
                    await self._threads.run(lambda: self._read(suite))
        return self._found

    def _read(self, suite: Registry) -> None:
        found = {name: code_version(self._layout, service) for name, service in suite.services.items()}
        self._found = {name: version for name, version in found.items() if version is not None}


def commit_of(directory: Path) -> str:
    """Return the abbreviated commit of a checkout; empty if it is none.

    This only reads files (gitrepository-layout(5)): git would run programs in the checkout's configuration. The files
    are not trusted, since a service can write them.
    """
    try:
        git = directory / ".git"
        if git.is_file():
            git = directory / _text(git).removeprefix("gitdir:").strip()
        head = _text(git / "HEAD").strip()
        if not head.startswith("ref: "):
            return _abbreviated(head)
        common = git / "commondir"
        shared = git / _text(common).strip() if common.exists() else git
        name = head.removeprefix("ref: ")
        if ".." in name:
            return ""
        for place in (git / name, shared / name):
            if place.is_file():
                return _abbreviated(_text(place).strip())
        for line in _text(shared / "packed-refs").splitlines():
            if line.endswith(f" {name}"):
                return _abbreviated(line.partition(" ")[0])
    except (OSError, ValueError):
        return ""
    return ""


def _abbreviated(commit: str) -> str:
    """Return the first digits of COMMIT; empty for other text."""
    return commit[:_DIGITS] if _COMMIT.fullmatch(commit) else ""


def _text(path: Path) -> str:
    """Return the content of a regular file, which can't block. Raises OSError and ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(_MOST_BYTES).decode()
    finally:
        os.close(descriptor)
