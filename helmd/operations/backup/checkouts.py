"""The checkout and the virtual environment in a service's directory: recording and recreating them.

A service may write anything into its directory, including ``.git/config``, which can name programs for git to run. So
git is never run with it: the needed facts are read as text, and modified files are determined by git in a temporary
repository that only uses the objects and the index.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from helmd.files.beneath import opened_directory, read_in
from helmd.files.trees import entries
from helmd.keycloak.distribution.artefact import KEYCLOAK
from helmd.keycloak.distribution.unpack import unpacked
from helmd.model.backup.manifest import BackupError, EnvironmentRef, ServiceRef
from helmd.model.errors import HelmError
from helmd.model.layout import Layout, ModulePlaces
from helmd.model.suite.names import TARGET
from helmd.model.suite.service import Service
from helmd.modules.records import read_record
from helmd.modules.sandbox import BuildSandbox, Ran, run_in
from helmd.operations.configuration.host_facts import host_of

_SECONDS = 120.0
_ENVIRONMENT_SECONDS = 900.0
_LARGEST_INDEX = 64 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_REF = re.compile(r"refs/[A-Za-z0-9._/-]{1,200}\Z")
_DISTRIBUTION = re.compile(r"([A-Za-z0-9][A-Za-z0-9._]*)-([0-9][A-Za-z0-9.!+]*)\.dist-info\Z")
_TOOLS = ("pip", "setuptools", "wheel")
_CACHES = ("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache")
_WRITTEN_BY_HELM = ("services.json",)
_PROTOCOLS = (
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=always",
)


def service_ref(service: Service, layout: Layout) -> ServiceRef:
    """Return what to back up of a service's directory, and the facts to recreate the rest."""
    directory = layout.resolve(service.path)
    environment = _environment(service, directory)
    remote, commit, changed, reproducible = "", "", False, False
    if service.type == "keycloak":
        reproducible = directory == layout.data / KEYCLOAK.directory and unpacked(layout.data) is not None
    elif (module := layout.module_of(directory)) is not None:
        remote, commit, reproducible = _module_facts(module, directory.name)
    else:
        remote, commit, changed, reproducible = _git_facts(service, directory)
    saved = service.backup
    if saved == "auto":
        saved = "shared" if reproducible or _too_wide(directory, layout) else "whole"
    if saved == "whole" and _too_wide(directory, layout):
        saved = "shared"
    unit = service.enabled_unit
    disabled = layout.unit_file(unit).exists() and not os.path.lexists(layout.admin_units / f"{TARGET}.wants" / unit)
    port = service.port or 0
    return ServiceRef(
        service.name, service.type, service.path, port, saved, remote, commit, changed, environment, disabled
    )


def _module_facts(places: ModulePlaces, version: str) -> tuple[str, str, bool]:
    """Return source and commit of a module's version, and whether git can fetch it again, from another machine."""
    try:
        record = read_record(places)
    except HelmError:
        return "", "", False
    found = record.version(version) if record is not None else None
    if record is None or found is None:
        return "", "", False
    return record.source, found.commit, not record.source.startswith("/")


def _too_wide(directory: Path, layout: Layout) -> bool:
    """Return whether a directory contains more than a service's files, or is not this account's."""
    try:
        own = os.stat(directory, follow_symlinks=False).st_uid == os.geteuid()
    except OSError:
        own = False
    return not own or any(
        place.is_relative_to(directory) for place in (layout.config, layout.state, layout.data, layout.runtime)
    )


def skipped_in(ref: ServiceRef, name: str) -> bool:
    """Return whether NAME in a service's directory is recreated instead of being backed up."""
    if name.rsplit("/", 1)[-1] in _CACHES:
        return True
    if ref.environment is not None and name == ref.environment.directory:
        return True
    return ref.type == "keycloak" and name == "data"


def _environment(service: Service, directory: Path) -> EnvironmentRef | None:
    """Return the virtual environment in a service's directory; nothing of it is executed."""
    if service.type != "python" or service.start_command or service.python_bin.startswith(("/", "~")):
        return None
    place = Path(service.python_bin).parent.parent
    if str(place) in ("", "."):
        return None
    try:
        with opened_directory(directory / place) as folder:
            text = (read_in(folder, "pyvenv.cfg") or b"").decode(errors="replace")
        values = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}
        version = ".".join(values.get("version", values.get("version_info", "")).split(".")[:2])
        if not re.fullmatch(r"\d+\.\d+", version):
            return None
        names: list[str] = []
        with (
            suppress(FileNotFoundError),
            opened_directory(directory / place / "lib" / f"python{version}" / "site-packages") as packages,
        ):
            names = os.listdir(packages)
    except OSError:
        return None
    found = (match for name in sorted(names) if (match := _DISTRIBUTION.match(name)))
    packages_found = tuple(f"{match[1]}=={match[2]}" for match in found if match[1].lower() not in _TOOLS)
    return EnvironmentRef(str(place), version, values.get("include-system-site-packages") == "true", packages_found)


def _git_facts(service: Service, directory: Path) -> tuple[str, str, bool, bool]:
    """Return remote and commit of a checkout, whether it has changes, and whether git can fetch it again."""
    try:
        git = directory / ".git"
        remote = _remote(_text(git, "config"))
        commit = _head(git)
        if not remote or not commit or shutil.which("git") is None:
            return remote, commit, True, False
        changed, pushed = _compare(service, directory, commit)
        return remote, commit, changed, pushed and not changed
    except (OSError, ValueError, subprocess.SubprocessError):
        return "", "", True, False


def _text(folder: Path, name: str) -> str:
    with opened_directory((folder / name).parent) as opened:
        return (read_in(opened, Path(name).name) or b"").decode(errors="replace")


def _remote(config: str) -> str:
    """Return the URL of the remote repository ``origin`` in a .git/config."""
    section = ""
    for line in config.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        key, equals, value = line.partition("=")
        if section == '[remote "origin"]' and equals and key.strip() == "url":
            # Control characters would be shown, and a user's password in it would be in the manifest.
            url = re.sub(r"(?<=://)[^/@]*:[^/@]*@", "", value.strip())
            return url if url.isprintable() and len(url) < 500 and not url.startswith("-") else ""
    return ""


def _refs(git: Path) -> Mapping[str, str]:
    found = {}
    for line in _text(git, "packed-refs").splitlines():
        commit, _, name = line.partition(" ")
        if _COMMIT.match(commit) and _REF.match(name):
            found[name] = commit
    with suppress(FileNotFoundError):
        for entry in entries(git / "refs"):
            if entry.member.kind == "file" and entry.member.size < 100:
                content = b"".join(entry.chunks).decode(errors="replace").strip()
                if _COMMIT.match(content):
                    found[f"refs/{entry.member.name}"] = content
    return found


def _head(git: Path) -> str:
    head = _text(git, "HEAD").strip()
    if head.startswith("ref: "):
        head = _refs(git).get(head.removeprefix("ref: "), "")
    return head if _COMMIT.match(head) else ""


def _compare(service: Service, directory: Path, commit: str) -> tuple[bool, bool]:
    """Return whether files differ from COMMIT, shared paths aside, and whether a branch of the remote has it."""
    git = directory / ".git"
    with tempfile.TemporaryDirectory(prefix="helm-git-") as own:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": own,
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_OPTIONAL_LOCKS": "0",
        }
        _run(["git", "init", "--quiet", "--bare", "--template=", f"{own}/git"], environment)
        environment |= {"GIT_DIR": f"{own}/git", "GIT_OBJECT_DIRECTORY": str(git / "objects")}
        environment |= {"GIT_WORK_TREE": str(directory), "GIT_INDEX_FILE": f"{own}/git/index"}
        (Path(own) / "git/HEAD").write_text(f"{commit}\n")
        with opened_directory(git) as folder:
            descriptor = os.open("index", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as index:
            (Path(own) / "git/index").write_bytes(index.read(_LARGEST_INDEX))
        words = ["git", "-c", "core.bare=false", "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames"]
        status = _run([*words, "--ignore-submodules=none"], environment)
        venv = str(Path(service.python_bin).parent.parent)
        state = (*service.shared_paths, *_WRITTEN_BY_HELM, venv)
        changed = [
            name
            for name in (each[3:] for each in status.split("\0") if len(each) > 3)
            if not any(name == path or name.startswith(f"{path}/") for path in state)
            and not any(part in _CACHES for part in name.split("/"))
        ]
        remote = [each for name, each in _refs(git).items() if name.startswith("refs/remotes/origin/")]
        missing = (
            _run(["git", "rev-list", "--max-count=1", commit, "--not", *remote[:500]], environment)
            if remote
            else commit
        )
        return bool(changed), not missing.strip()


def _run(words: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        words,
        env=dict(environment),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=True,
        cwd="/",
    )
    return done.stdout


def remote_fault(ref: ServiceRef) -> str:
    """Return why a service's code can't be fetched from its remote repository; empty if that is reachable."""
    if shutil.which("git") is None:
        return "git is not installed: sudo apt install git"
    try:
        done = _git("ls-remote", "--heads", "--", ref.remote)
    except subprocess.TimeoutExpired:
        return f"{ref.remote} does not answer"
    return "" if done.returncode == 0 else f"{ref.remote} can't be read: {_last(done.stderr)}"


def clone(ref: ServiceRef, place: Path) -> None:
    """Clone a service's code into PLACE, at the commit of the backup, unless PLACE exists. Raises BackupError."""
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.cloning-", dir=place.parent))
    try:
        for words in (
            ("clone", "--quiet", "--no-checkout", "--template=", "--", ref.remote, str(temporary / "checkout")),
            ("-C", str(temporary / "checkout"), "checkout", "--quiet", "--detach", ref.commit),
        ):
            done = _git(*words)
            if done.returncode:
                raise BackupError(
                    f"the code of {ref.name} can't be fetched from {ref.remote}: {_last(done.stderr)}",
                    hint=f"Clone it to {place} by hand, at commit {ref.commit[:12]}, and run the command again.",
                )
        os.rename(temporary / "checkout", place)
    except subprocess.TimeoutExpired:
        raise BackupError(f"{ref.remote} took too long", hint="Run the command again.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _git(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run git with the admin's configuration, without hooks, and with protocols that run no programs."""
    options = [
        word for option in (*_PROTOCOLS, "core.hooksPath=/dev/null", "core.fsmonitor=false") for word in ("-c", option)
    ]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        ["git", *options, *words], env=environment, capture_output=True, text=True, errors="replace",
        timeout=_SECONDS * 5, check=False, cwd="/", stdin=subprocess.DEVNULL,
    )  # fmt: skip


RunProgram = Callable[[Sequence[str], bool], Ran]
"""Runs a program: its words, and whether it needs the network. Raises ModuleError."""


def sandboxed(layout: Layout, name: str, directory: Path) -> RunProgram:
    """Return a function that runs programs in a sandbox with only the DIRECTORY of the service NAME."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    sandbox = BuildSandbox(
        layout,
        name,
        host_of(layout).user_namespaces,
        directory,
        writable=(directory,),
        environment=environment,
        seconds=_ENVIRONMENT_SECONDS,
    )
    return lambda words, network: run_in(replace(sandbox, network=network), words, lambda line: None)


def make_environment(ref: ServiceRef, directory: Path, run: RunProgram) -> Iterator[str]:
    """Recreate the virtual environment of a service, if missing; return what was done or failed, as sentences."""
    wanted = ref.environment
    if wanted is None:
        return
    place = directory / wanted.directory
    if (place / "bin/python").exists():
        return
    options = ["--system-site-packages"] if wanted.system_site_packages else []
    options += [] if wanted.packages else ["--without-pip"]
    make = ["/usr/bin/python3", "-I", "-m", "venv", "--symlinks", *options, str(place)]
    fill = [f"{place}/bin/python", "-I", "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--"]
    steps = [(make, False, "was not made")]
    if wanted.packages:
        steps.append(([*fill, *wanted.packages], True, "lacks its packages"))
    for words, network, what in steps:
        ran = run(words, network)
        if not ran.good:
            lacking = any("ensurepip is not" in line for line in ran.tail)
            why = "this machine lacks python3-venv: sudo apt install python3-venv" if lacking else ran.why
            by_hand = f"{place}/bin/python -m pip install -r requirements.txt, in {directory}"
            yield f"warning: the virtual environment of {ref.name} {what} ({why}); by hand: {by_hand}"
            return
    yield f"made the virtual environment of {ref.name}"


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it gave no reason"
