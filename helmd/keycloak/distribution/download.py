"""Downloading an archive over HTTP; an interrupted transfer is resumed (RFC 9110, section 14)."""

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO, BinaryIO

from helmd.keycloak.distribution.artefact import Artefact, DownloadCallback, verify_artefact
from helmd.model.errors import FetchError

_BLOCK = 256 * 1024
_READ_TIMEOUT = 30.0
_ATTEMPTS = 4
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")


class _RefuseDowngrade(urllib.request.HTTPRedirectHandler):
    """Refuses redirects from https to an unencrypted URL."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"redirected to an unencrypted URL: {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def partial_path(target: Path) -> Path:
    """Return the path of the incomplete download of TARGET."""
    return target.with_name(target.name + ".part")


def download(artefact: Artefact, target: Path, progress: DownloadCallback) -> None:
    """Download the artefact to TARGET, resuming an interrupted download. The caller must hold a lock.

    Raises FetchError. The incomplete file stays for the next attempt, unless its content is wrong.
    """
    partial = partial_path(target)
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            _complete(artefact, file, progress)
        except FetchError:
            if file.seek(0, os.SEEK_END) == 0:
                partial.unlink()
            raise
        try:
            verify_artefact(file, artefact, artefact.url)
        except FetchError:
            partial.unlink()
            raise
        os.fsync(file.fileno())
        partial.rename(target)


def _complete(artefact: Artefact, file: BinaryIO, progress: DownloadCallback) -> None:
    """Transfer until FILE has the artefact's size. Raises FetchError after _ATTEMPTS attempts without progress."""
    failures = 0
    while (have := file.seek(0, os.SEEK_END)) < artefact.size:
        try:
            _transfer(artefact, file, have, progress)
            reason = "the server ended the transfer early"
        except urllib.error.HTTPError as fault:
            if fault.code not in (408, 416, 429) and fault.code < 500:
                raise FetchError(
                    f"{artefact.url} returned {fault.code} {fault.reason}", hint=_hint(artefact)
                ) from fault
            reason = f"{fault.code} {fault.reason}"
        except (urllib.error.URLError, http.client.HTTPException, OSError) as fault:
            reason = str(getattr(fault, "reason", fault))
        now = file.seek(0, os.SEEK_END)
        failures = 0 if now > have else failures + 1
        if failures == _ATTEMPTS:
            raise FetchError(f"could not fetch {artefact.url}: {reason}", hint=_hint(artefact))
        if now < artefact.size:
            time.sleep(0.2 * 2**failures)


def _transfer(artefact: Artefact, file: BinaryIO, have: int, progress: DownloadCallback) -> None:
    request = urllib.request.Request(artefact.url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - a constant
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.build_opener(_RefuseDowngrade).open(request, timeout=_READ_TIMEOUT) as response:
        content_range = _RANGE.match(response.headers.get("Content-Range", "")) if response.status == 206 else None
        if have and (content_range is None or int(content_range.group(1)) != have):
            # The server ignored the Range header, or sent another range.
            file.truncate(0)
            if response.status != 200:
                return
            have = 0
        length = content_range.group(2) if content_range and have else response.headers.get("Content-Length", "nothing")
        if length != str(artefact.size):
            # Such as a login page with status 200: refused before any of it is written.
            raise FetchError(f"{artefact.url} has {length} bytes instead of {artefact.size}", hint=_hint(artefact))
        file.seek(have)
        while block := response.read(min(_BLOCK, artefact.size - have)):
            have += len(block)
            file.write(block)
            progress(have, artefact.size)
        file.flush()


def _hint(artefact: Artefact) -> str:
    return f"Download {artefact.file} on another machine and pass it with --keycloak-archive FILE."
