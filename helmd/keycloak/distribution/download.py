"""One archive over HTTP, resumed where an earlier transfer broke off (RFC 9110, section 14)."""

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
_SILENCE = 30.0
_ATTEMPTS = 4
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")


class _StaySecure(urllib.request.HTTPRedirectHandler):
    """A transfer that began encrypted isn't redirected to one that is not."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"redirected to an unencrypted address: {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def part_of(target: Path) -> Path:
    """Where the bytes of an unfinished download of TARGET are."""
    return target.with_name(target.name + ".part")


def download(artefact: Artefact, target: Path, progress: DownloadCallback) -> None:
    """Puts the artefact at TARGET. A transfer that breaks off leaves its part to go on from; a wrong one nothing.

    Raises FetchError. The caller sees to it that there is one download of a file at a time.
    """
    part = part_of(target)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            _complete(artefact, file, progress)
        except FetchError:
            if file.seek(0, os.SEEK_END) == 0:
                part.unlink()
            raise
        try:
            verify_artefact(file, artefact, artefact.url)
        except FetchError:
            part.unlink()
            raise
        os.fsync(file.fileno())
        part.rename(target)


def _complete(artefact: Artefact, file: BinaryIO, progress: DownloadCallback) -> None:
    """Fills FILE to the artefact's size; gives up after a few attempts in a row that brought nothing."""
    fruitless = 0
    while (have := file.seek(0, os.SEEK_END)) < artefact.size:
        try:
            _transfer(artefact, file, have, progress)
            reason = "the server ended the transfer early"
        except urllib.error.HTTPError as fault:
            if fault.code not in (408, 416, 429) and fault.code < 500:
                raise FetchError(
                    f"{artefact.url} answered {fault.code} {fault.reason}", hint=_hint(artefact)
                ) from fault
            reason = f"{fault.code} {fault.reason}"
        except (urllib.error.URLError, http.client.HTTPException, OSError) as fault:
            reason = str(getattr(fault, "reason", fault))
        now = file.seek(0, os.SEEK_END)
        fruitless = 0 if now > have else fruitless + 1
        if fruitless == _ATTEMPTS:
            raise FetchError(f"{artefact.url} can't be fetched: {reason}", hint=_hint(artefact))
        if now < artefact.size:
            time.sleep(0.2 * 2**fruitless)


def _transfer(artefact: Artefact, file: BinaryIO, have: int, progress: DownloadCallback) -> None:
    request = urllib.request.Request(artefact.url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - a constant
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.build_opener(_StaySecure).open(request, timeout=_SILENCE) as answer:
        place = _RANGE.match(answer.headers.get("Content-Range", "")) if answer.status == 206 else None
        if have and (place is None or int(place.group(1)) != have):
            # The whole file again, or a part that doesn't fit.
            file.truncate(0)
            if answer.status != 200:
                return
            have = 0
        announced = place.group(2) if place and have else answer.headers.get("Content-Length", "nothing")
        if announced != str(artefact.size):
            # A login page or an error that calls itself success; nothing of it goes into the part.
            raise FetchError(
                f"{artefact.url} announces {announced} bytes instead of {artefact.size}", hint=_hint(artefact)
            )
        file.seek(have)
        while block := answer.read(min(_BLOCK, artefact.size - have)):
            have += len(block)
            file.write(block)
            progress(have, artefact.size)
        file.flush()


def _hint(artefact: Artefact) -> str:
    return f"Fetch {artefact.file} on another machine and give it with --keycloak FILE."
