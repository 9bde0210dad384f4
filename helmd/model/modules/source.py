"""Where a module comes from: the URL of a git repository, and a revision in it. Whatever is read here is hostile.

Git takes programs and options from places that look like URLs and names (gitremote-helpers(7), CVE-2017-1000117). So
what is accepted is described by what it may have in it, not by what it may not.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from helmd.model.config.validators import git_ref, git_source
from helmd.model.errors import UsageError
from helmd.model.suite.names import fault_in_name

SourceKind = Literal["https", "ssh", "file"]

_PREFIX = "hivematrix-"
COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_PARTIAL_COMMIT = re.compile(r"[0-9a-f]{7,40}\Z")


@dataclass(frozen=True, slots=True)
class GitSource:
    """A repository that git may fetch from. ``url`` is as git gets it."""

    url: str
    kind: SourceKind

    @property
    def host(self) -> str:
        """The host that it is on; empty for this one."""
        if self.kind == "file":
            return ""
        if "://" in self.url:
            return urlsplit(self.url).hostname or ""
        return self.url.partition("@")[2].partition(":")[0]

    @property
    def default_name(self) -> str:
        """The name of the service that a module of this repository becomes, unless another one is given."""
        last = re.split(r"[/:]", self.url.rstrip("/"))[-1].lower()
        return last.removesuffix(".git").removeprefix(_PREFIX)


def git_source_of(text: str, *, files: bool = False) -> GitSource:
    """Return the source that TEXT names; paths of this machine only with FILES. Raises UsageError."""
    given = text.removeprefix("file://") if text.startswith("file:///") else text
    try:
        url = git_source(given)
    except ValueError as problem:
        raise UsageError(f"the source {problem}", hint=SOURCE_HINT) from None
    kind: SourceKind = "file" if url.startswith("/") else "https" if url.startswith("https://") else "ssh"
    if kind == "file" and not files:
        raise UsageError(
            f"{url} is a repository on this machine, which is not allowed",
            hint="Allow it with --allow-file, or set files = true in [modules] of helm.toml.",
        )
    return GitSource(url, kind)


SOURCE_HINT = (
    "Give one such as https://github.com/skelhammer/hivematrix-core, or ssh://git@example.org/modules/desk.git"
)


def ref_of(text: str) -> str:
    """Return the revision that TEXT names, or an empty string for that of the default branch. Raises UsageError."""
    try:
        return git_ref(text) if text else ""
    except ValueError as problem:
        raise UsageError(f"the revision {problem}", hint="Give a branch, a tag or a commit: --ref main") from None


def is_commit(ref: str) -> bool:
    """Return whether REF can be (the beginning of) a commit's id, rather than a name."""
    return _PARTIAL_COMMIT.match(ref) is not None


def module_name(source: GitSource, given: str = "") -> str:
    """Return the name of the service for a module of SOURCE: the one that is GIVEN, or by its URL. Raises
    UsageError.
    """
    name = given or source.default_name
    if fault := fault_in_name(name):
        hint = "" if given else "Name it yourself: --name NAME"
        raise UsageError(f"'{name[:60]}' can't be the module's name: {fault}", hint=hint)
    return name
