"""A module's repository: a bare mirror configured by Helm only. git runs in a sandbox that only sees the mirror.

The content of a repository and the data of its server are not trusted. Configuration, hooks, attributes and URLs, in
which git finds programs to run, are not taken from it.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from helmd.files.durable import write_if_changed
from helmd.files.trees import size_below
from helmd.model.errors import ModuleError
from helmd.model.layout import ModulePlaces
from helmd.model.modules.access import access_fault, is_denied, is_redirected, redirect_target
from helmd.model.modules.plan import COMMIT_FORMAT, MOST_COMMITS, Commit, commits_in
from helmd.model.modules.source import COMMIT, GitSource, is_commit
from helmd.model.modules.tree import LINK, MAX_LISTING, MAX_TARGET, Tree, read_listing
from helmd.modules.known_hosts import known_hosts
from helmd.modules.sandbox import BuildSandbox, Ran, TakeLine, run_in

_LARGEST_FILE = 1 << 20
"""Maximum number of bytes read of a file of a commit."""
_SCRATCH = "/tmp"  # noqa: S108 - the sandbox has one of its own
_DEFAULT = "refs/helm/default"
_SHALLOW = "because shallow roots are not allowed to be updated"
_NO_HEAD = "couldn't find remote ref HEAD"
_CONFIGURATION = """\
# Written by helmctl modules: all that git knows while it is at this module's repository.
[protocol]
	allow = never
[protocol "{kind}"]
	allow = always
[core]
	hooksPath = /dev/null
	fsmonitor = false
	attributesFile = /dev/null
	excludesFile = /dev/null
	untrackedCache = false
	symlinks = true
	protectHFS = true
	protectNTFS = true
	askPass = /bin/false
[credential]
	helper =
[transfer]
	fsckObjects = true
[fetch]
	recurseSubmodules = false
	unpackLimit = 1
[submodule]
	recurse = false
[gc]
	auto = 0
[maintenance]
	auto = false
[http]
	lowSpeedLimit = 1000
	lowSpeedTime = 60
	followRedirects = false
[safe]
	directory = *
[advice]
	detachedHead = false
"""
_FETCH = """\
git --git-dir="$1" init --quiet --bare --template= "$1"
[ -n "$4" ] || git --git-dir="$1" update-ref --no-deref -d "$3"
exec git --git-dir="$1" fetch --progress --prune --force --no-tags --no-write-fetch-head --no-auto-maintenance \\
    --end-of-options "$2" '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*' ${4:+"+$4:$3"}
"""
_CHECKOUT = """\
export GIT_INDEX_FILE="$TMPDIR/index"
git --git-dir="$1" -c core.bare=false --work-tree="$2" read-tree "$3"
cd "$2"
exec git --git-dir="$1" -c core.bare=false --work-tree="$2" checkout-index --all --force
"""

_CHANGED = """\
export GIT_INDEX_FILE="$TMPDIR/index"
git --git-dir="$1" -c core.bare=false --work-tree="$2" read-tree "$3"
cd "$2"
git --git-dir="$1" -c core.bare=false --work-tree="$2" update-index -q --refresh >/dev/null || true
exec git --git-dir="$1" -c core.bare=false --work-tree="$2" diff-files --name-only --no-ext-diff --no-textconv -z
"""


@dataclass(frozen=True, slots=True)
class Repository:
    """The repository of one module. ``sandbox`` has the limits; what it sees is set for each command."""

    places: ModulePlaces
    source: GitSource
    sandbox: BuildSandbox
    max_size: int
    line: TakeLine
    trial_key: Path | None = None
    """A key for reading in place of the module's own, which is not stored."""

    def _in(
        self, writable: tuple[Path, ...], readable: tuple[Path, ...], network: bool = False, key: Path | None = None
    ) -> BuildSandbox:
        configuration = self.places.root / "gitconfig"
        write_if_changed(configuration, _CONFIGURATION.format(kind=self.source.kind), 0o600)
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": _SCRATCH,
            "TMPDIR": _SCRATCH,
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(configuration),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_ATTR_NOSYSTEM": "1",
        }
        readable = (*readable, configuration)
        if self.source.kind == "ssh" and network:
            environment["GIT_SSH_COMMAND"] = self._ssh(key)
            writable = (*writable, self.places.known_hosts)
            readable = (*readable, key) if key is not None else readable
        return replace(
            self.sandbox,
            directory=writable[0] if writable else self.places.mirror,
            writable=writable,
            readable=readable,
            network=network,
            environment=environment,
            largest_file=self.max_size,
        )

    def _ssh(self, key: Path | None) -> str:
        """Return the command of ssh. Its options name files, and have no secret in them.

        The host key of an unknown server is accepted once (trust on first use); a known one must have the same key.
        """
        hosts = self.places.known_hosts
        if not hosts.exists():
            os.close(os.open(hosts, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        options = ["BatchMode=yes", "StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={hosts}"]
        options += ["ForwardAgent=no", "PermitLocalCommand=no", "ProxyCommand=none", "ConnectTimeout=30"]
        options += ["IdentitiesOnly=yes", f"IdentityFile={key or 'none'}"]
        return " ".join(["ssh", "-F", "/dev/null", *(f"-o {each}" for each in options)])

    def _too_large(self) -> Callable[[], str]:
        def watch() -> str:
            size = size_below(self.places.mirror)
            return f"the repository has more than {self.max_size >> 20:,} MB" if size > self.max_size else ""

        return watch

    def fetch(self) -> list[str]:
        """Fetch the source into the mirror; return remarks, as sentences. Raises ModuleError."""
        if shutil.which("git") is None:
            raise ModuleError("git is not installed", hint="Run: sudo apt install git")
        mirror = self.places.mirror
        mirror.mkdir(parents=True, exist_ok=True, mode=0o700)
        seen = (Path(self.source.url),) if self.source.kind == "file" else ()
        if seen and not seen[0].is_dir():
            raise ModuleError(f"{self.source.url} is not a directory", hint="Give the path of a git repository.")
        if self.source.kind == "ssh" and shutil.which("ssh") is None:
            raise ModuleError("ssh is not installed", hint="Run: sudo apt install openssh-client")
        known = set(known_hosts(self.places))
        key, before = self.places.deploy_key, self.places.deploy_key_before
        used = self.trial_key or (key if key.exists() else None)
        ran = self._fetched(seen, used)
        if not ran.good and any(_NO_HEAD in line for line in ran.tail):
            # Its HEAD names a branch that does not exist.
            ran = self._fetched(seen, used, head=False)
        remarks = []
        if before.exists() and self.source.kind == "ssh" and self.trial_key is None:
            if ran.good and key.exists():
                before.unlink()
                remarks.append("its new deploy key is accepted; the one before is removed")
            elif is_denied(ran.tail):
                remarks.append("its new deploy key is not accepted yet, so the one before is used")
                ran = self._fetched(seen, before)
        # Also after a refused login: from now on no other host key is accepted.
        remarks += [
            f"{new.host} was not known: its {new.type} key {new.fingerprint} is accepted, and no other from now on"
            for new in known_hosts(self.places)
            if new not in known
        ]
        if not ran.good:
            raise self._fault(ran, seen, remarks)
        if any(_SHALLOW in line for line in ran.tail):
            # git succeeds without fetching anything.
            raise ModuleError(
                f"{self.source.url} is a clone without its history",
                hint=f"Complete it: git -C {self.source.url} fetch --unshallow"
                if seen
                else "Give what it was made of.",
            )
        return remarks

    def _fetched(self, seen: tuple[Path, ...], key: Path | None, traced: bool = False, head: bool = True) -> Ran:
        sandbox = self._in((self.places.mirror,), seen, network=self.source.kind != "file", key=key)
        if traced:
            variables = {"GIT_TRACE_CURL": "1", "GIT_TRACE_CURL_NO_DATA": "1"}
            sandbox = replace(sandbox, environment={**sandbox.environment, **variables})
        words = ["/bin/sh", "-euc", _FETCH, "sh", str(self.places.mirror), self.source.url, _DEFAULT]
        words.append("HEAD" if head else "")
        return run_in(sandbox, words, self.line, watch=self._too_large())

    def _fault(self, ran: Ran, seen: tuple[Path, ...], remarks: list[str]) -> ModuleError:
        """Return why fetching failed. After a redirect the server is queried again, for the target."""
        target = ""
        if is_redirected(ran.tail):
            target = redirect_target(self._fetched(seen, None, traced=True).tail)
        has_key = self.trial_key is not None or self.places.deploy_key.exists()
        why, hint = access_fault(self.source, self.places.root.name, ran.tail, target, has_key)
        sentence = f"{self.source.url} could not be fetched: {ran.stopped or why or ran.why}"
        return ModuleError(sentence, hint=hint, lines=(*remarks, *ran.tail[-10:]))

    def resolve(self, ref: str) -> str:
        """Return the commit that REF means: a branch, a tag, or a commit; of the default branch without one."""
        wanted = [f"refs/heads/{ref}", f"refs/tags/{ref}"] if ref else [_DEFAULT]
        # A whole id means that commit, also where a branch is called so; the beginning of one may be a branch's name.
        wanted = [ref, *wanted] if COMMIT.match(ref) else [*wanted, ref] if is_commit(ref) else wanted
        for name in wanted:
            ran = self._read("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
            commit = ran.output.decode("ascii", "replace").strip()
            if ran.good and COMMIT.match(commit):
                return commit
        what = f"no branch, tag or commit '{ref}'" if ref else "no default branch"
        raise ModuleError(f"{self.source.url} has {what}", hint="Name one that it has: --ref main")

    def _read(self, *words: str, given: bytes = b"", keep: int = 1 << 20) -> Ran:
        sandbox = self._in((), (self.places.mirror,))
        return run_in(sandbox, ["git", f"--git-dir={self.places.mirror}", *words], self.line, given=given, keep=keep)

    def tree(self, commit: str) -> Tree:
        """Return the tree of COMMIT. Raises ModuleError."""
        ran = self._read("ls-tree", "-r", "-z", "-l", "--full-tree", commit, keep=MAX_LISTING)
        if ran.stopped:
            raise ModuleError(f"the tree of commit {commit[:12]} can't be read: {ran.stopped}")
        try:
            entries = read_listing(ran.output) if ran.good else []
        except ValueError as problem:
            raise ModuleError(f"the tree of commit {commit[:12]} can't be installed: {problem}") from None
        if not ran.good or not entries:
            raise ModuleError(f"commit {commit[:12]} has no files that could be installed")
        links = [entry for entry in entries if entry.mode == LINK and entry.size <= MAX_TARGET]
        targets = self._contents([entry.object for entry in links], MAX_TARGET * max(1, len(links)) + (1 << 20))
        return Tree(
            {entry.path: entry for entry in entries},
            {entry.path: targets.get(entry.object, b"/").decode("utf-8", "surrogateescape") for entry in links},
        )

    def _contents(self, objects: list[str], keep: int) -> dict[str, bytes]:
        """Return the contents of blobs."""
        if not objects:
            return {}
        given = "".join(f"{each}\n" for each in dict.fromkeys(objects)).encode()
        output = self._read("cat-file", "--batch", given=given, keep=min(keep, MAX_LISTING)).output
        found: dict[str, bytes] = {}
        while output:
            head, newline, output = output.partition(b"\n")
            words = head.split()
            if not newline or len(words) != 3 or not words[2].isdigit():
                break
            size = int(words[2])
            found[words[0].decode("ascii", "replace")] = output[:size]
            output = output[size + 1 :]
        return found

    def file(self, tree: Tree, path: str) -> str | None:
        """Return the text of a file of TREE, or None without one. Raises ModuleError for what is not a small text."""
        entry = tree.entries.get(path)
        if entry is None or entry.mode == LINK:
            return None
        if entry.size > _LARGEST_FILE:
            raise ModuleError(f"{path} is larger than {_LARGEST_FILE >> 20} MiB")
        try:
            return self._contents([entry.object], 2 * _LARGEST_FILE).get(entry.object, b"").decode()
        except UnicodeDecodeError:
            raise ModuleError(f"{path} is not UTF-8 text") from None

    def has_large_files(self, tree: Tree) -> bool:
        """Return whether the attributes at the top of TREE name files of Git LFS, whose contents are elsewhere."""
        try:
            return "filter=lfs" in (self.file(tree, ".gitattributes") or "").split()
        except ModuleError:
            return False

    def check_out(self, commit: str, directory: Path) -> None:
        """Write the files of COMMIT into DIRECTORY, which must be empty. Raises ModuleError."""
        sandbox = self._in((directory,), (self.places.mirror,))
        words = ["/bin/sh", "-euc", _CHECKOUT, "sh", str(self.places.mirror), str(directory), commit]
        ran = run_in(sandbox, words, self.line)
        if not ran.good:
            raise _failed(f"commit {commit[:12]} could not be checked out", ran)

    def changed_files(self, commit: str, directory: Path) -> list[str]:
        """Return the files of COMMIT that are modified or missing in DIRECTORY; none if that is unknown."""
        sandbox = self._in((), (self.places.mirror, directory))
        words = ["/bin/sh", "-euc", _CHANGED, "sh", str(self.places.mirror), str(directory), commit]
        ran = run_in(sandbox, words, self.line, keep=1 << 20)
        return [each for each in ran.output.decode("utf-8", "replace").split("\0") if each] if ran.good else []

    def log_between(self, old: str, new: str) -> tuple[tuple[Commit, ...], int]:
        """Return the newest `MOST_COMMITS` commits that NEW has and OLD has not, the newest first, and how many there
        are.
        """
        if old == new or not (COMMIT.match(old) and COMMIT.match(new)):
            return (), 0
        ran = self._read("log", "-z", f"--max-count={MOST_COMMITS}", f"--format={COMMIT_FORMAT}", f"{old}..{new}")
        found = commits_in(ran.output) if ran.good else ()
        if len(found) < MOST_COMMITS:
            return found, len(found)
        count = self._read("rev-list", "--count", f"{old}..{new}").output.strip()
        return found, int(count) if count.isdigit() and len(count) < 12 else len(found)


def _failed(sentence: str, ran: Ran, hint: str = "") -> ModuleError:
    return ModuleError(f"{sentence}: {ran.why}", hint=hint, lines=ran.tail[-10:])
