"""Fetching the archive with ``mvn``, which uses the mirrors and proxies that the user has configured."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from helmd.keycloak.distribution.artefact import Artefact, DownloadCallback, verify_artefact
from helmd.model.errors import FetchError

_PREFIX = ".maven-"
_POLL = 0.25
_STALL_TIMEOUT = 180.0


def available() -> str | None:
    """Return the path of ``mvn``, or None if it is not installed."""
    return shutil.which("mvn")


def fetch_by_maven(mvn: str, artefact: Artefact, target: Path, progress: DownloadCallback) -> None:
    """Fetch the artefact to TARGET through a temporary local repository. Raises FetchError.

    The caller must hold a lock on TARGET's directory.
    """
    for leftover in target.parent.glob(f"{_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=target.parent, ignore_cleanup_errors=True) as directory:
        repository = Path(directory) / "repository"
        home = repository.joinpath(*artefact.group.split("."), artefact.name)
        command = [mvn, "--batch-mode", "--no-transfer-progress", f"-Dmaven.repo.local={repository}"]
        command += ["dependency:get", f"-Dartifact={artefact.coordinates}", "-Dtransitive=false"]
        log = Path(directory) / "log"
        _run(command, Path(directory), log, home, artefact, progress)
        found = home / artefact.version / f"{artefact.name}-{artefact.version}.tar.gz"
        if not found.is_file():
            raise FetchError("mvn succeeded but the archive is missing", lines=_last_lines(log))
        with found.open("rb") as file:
            verify_artefact(file, artefact, "the file that mvn fetched")
            os.fsync(file.fileno())
        found.chmod(0o600)
        found.rename(target)


def _run(
    command: list[str], directory: Path, log: Path, home: Path, artefact: Artefact, progress: DownloadCallback
) -> None:
    """Run mvn in its own process group, so that its children can be killed with it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    seen, moved = -1, time.monotonic()
    try:
        while process.poll() is None:
            now = _size(home)
            if now != seen:
                seen, moved = now, time.monotonic()
                progress(min(seen, artefact.size), artefact.size)
            if time.monotonic() - moved > _STALL_TIMEOUT:
                raise FetchError(f"mvn made no progress for {_STALL_TIMEOUT:.0f} s", lines=_last_lines(log))
            time.sleep(_POLL)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise FetchError(f"mvn failed with exit code {process.returncode}", lines=_last_lines(log))
    progress(artefact.size, artefact.size)


def _size(directory: Path) -> int:
    """Return the size of the largest file below DIRECTORY: the archive, whose temporary name depends on mvn."""
    sizes = [0]
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                sizes.append((Path(parent) / name).stat().st_size)
            except FileNotFoundError:
                continue
    return max(sizes)


def _last_lines(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.startswith("[ERROR]")][:6] or lines[-6:]
