"""Fetching the Keycloak archive: a given file, one fetched before, the artefact from Maven, or the public release.

Also a program: ``python3 -m helmd.keycloak.distribution.fetch --into DIR`` puts the archive into DIR and prints its
path. It needs the standard library only.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from helmd.files.lock import locked_directory
from helmd.keycloak.distribution import maven
from helmd.keycloak.distribution.artefact import KEYCLOAK, Artefact, DownloadCallback, verify_artefact
from helmd.keycloak.distribution.download import download, partial_path
from helmd.model.errors import FetchError, HelmError


def fetch(
    into: Path,
    given: Path | None = None,
    progress: DownloadCallback = lambda done, total: None,
    artefact: Artefact = KEYCLOAK,
    mvn: str | None = None,
) -> Path:
    """Return the path of a verified archive: GIVEN, or a file in the directory INTO, fetched if missing.

    MVN is the path of the Maven client, which is failed before the public release (see `maven.available`). Raises
    FetchError, or LockedError if another process is fetching into the same directory.
    """
    if given is not None:
        _check(given, artefact)
        return given
    into.mkdir(parents=True, exist_ok=True)
    with locked_directory(into, f"another process is fetching into {into}"):
        target = _fetch_into(into, progress, artefact, mvn)
        partial_path(target).unlink(missing_ok=True)
        return target


def _fetch_into(into: Path, progress: DownloadCallback, artefact: Artefact, mvn: str | None) -> Path:
    target = into / artefact.file
    if target.is_file():
        try:
            _check(target, artefact)
            return target
        except FetchError:
            target.unlink()
    failed: list[FetchError] = []
    if mvn:
        try:
            maven.fetch_by_maven(mvn, artefact, target, progress)
            return target
        except FetchError as fault:
            failed.append(fault)
    try:
        download(artefact, target, progress)
    except FetchError as fault:
        if not failed:
            raise
        raise FetchError(
            f"{failed[0].sentence}; then {fault.sentence}", hint=fault.hint, lines=failed[0].lines
        ) from fault
    return target


def _check(path: Path, artefact: Artefact) -> None:
    try:
        with path.open("rb") as file:
            verify_artefact(file, artefact, str(path))
    except OSError as fault:
        raise FetchError(f"could not read {path}: {fault.strerror}") from fault


class _ProgressReport:
    """Writes progress to stderr: one line that is overwritten on a terminal, else a line every 2 seconds."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.next = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self.next and done < total:
            return
        self.next = now + (0.1 if self.terminal else 2.0)
        text = f"Keycloak {KEYCLOAK.version}: {done / 1e6:.0f} of {total / 1e6:.0f} MB"
        end = "\r" if self.terminal and done < total else "\n"
        print(text, end=end, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns the exit status: 0, or 1 if the archive could not be fetched."""
    parser = argparse.ArgumentParser(prog="fetch", description=f"Fetch the Keycloak {KEYCLOAK.version} archive.")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR", help="directory to put the archive in")
    parser.add_argument("--file", type=Path, metavar="FILE", help="check this archive instead of fetching one")
    options = parser.parse_args(arguments)
    try:
        print(fetch(options.into, options.file, _ProgressReport(), mvn=maven.available()))
    except HelmError as fault:
        for line in (f"fetch: {fault.sentence}", fault.hint, *fault.lines):
            if line:
                print(line, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
