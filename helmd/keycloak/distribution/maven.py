"""The archive by way of ``mvn``, which knows the mirrors and proxies that its owner has set up."""

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
_STALLED = 180.0


def available() -> str | None:
    """The path of ``mvn``, or None where it isn't installed."""
    return shutil.which("mvn")


def fetch_by_maven(mvn: str, artefact: Artefact, target: Path, progress: DownloadCallback) -> None:
    """Puts the artefact at TARGET, by way of a local repository that is gone afterwards. Raises FetchError.

    The caller sees to it that there is one of these in a directory at a time.
    """
    for left in target.parent.glob(f"{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=target.parent, ignore_cleanup_errors=True) as place:
        repository = Path(place) / "repository"
        home = repository.joinpath(*artefact.group.split("."), artefact.name)
        command = [mvn, "--batch-mode", "--no-transfer-progress", f"-Dmaven.repo.local={repository}"]
        command += ["dependency:get", f"-Dartifact={artefact.coordinates}", "-Dtransitive=false"]
        log = Path(place) / "log"
        _run(command, Path(place), log, home, artefact, progress)
        found = home / artefact.version / f"{artefact.name}-{artefact.version}.tar.gz"
        if not found.is_file():
            raise FetchError("mvn ended well but brought no archive", lines=_last_lines(log))
        with found.open("rb") as file:
            verify_artefact(file, artefact, "what mvn brought")
            os.fsync(file.fileno())
        found.chmod(0o600)
        found.rename(target)


def _run(
    command: list[str], place: Path, log: Path, home: Path, artefact: Artefact, progress: DownloadCallback
) -> None:
    """Runs mvn in a process group of its own, so that what it starts ends with it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=place, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    seen, moved = -1, time.monotonic()
    try:
        while process.poll() is None:
            now = _size(home)
            if now != seen:
                seen, moved = now, time.monotonic()
                progress(min(seen, artefact.size), artefact.size)
            if time.monotonic() - moved > _STALLED:
                raise FetchError(f"mvn brought nothing for {_STALLED:.0f} s", lines=_last_lines(log))
            time.sleep(_POLL)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise FetchError(f"mvn failed with exit code {process.returncode}", lines=_last_lines(log))
    progress(artefact.size, artefact.size)


def _size(directory: Path) -> int:
    """The largest file below, which is the archive whatever mvn calls it while it comes."""
    sizes = [0]
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                sizes.append((Path(place) / name).stat().st_size)
            except FileNotFoundError:
                continue
    return max(sizes)


def _last_lines(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.startswith("[ERROR]")][:6] or lines[-6:]
