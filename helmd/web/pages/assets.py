"""Style sheets, scripts and images of pages, below a path that contains a digest of them all.

So browsers may cache them forever, and scripts import each other by relative names. The package has them minified.
"""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from helmd.web.pages.policy import STATIC_PATH

STATIC = Path(__file__).resolve().parents[1] / "static"
KEPT_FOR_GOOD = "public, max-age=31536000, immutable"
_DIGITS = 12
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    content_type: str
    body: bytes
    compressed: bytes


class Assets:
    """The files below DIRECTORY, cached in memory."""

    def __init__(self, directory: Path = STATIC) -> None:
        self._by_name: dict[str, Asset] = {}
        digest = hashlib.sha256()
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                name, body = path.relative_to(directory).as_posix(), path.read_bytes()
                digest.update(f"{name} {len(body)}\n".encode() + body)
                kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                self._by_name[name] = Asset(kind, body, gzip.compress(body, mtime=0))
        self.digest = digest.hexdigest()[:_DIGITS]

    def url(self, name: str) -> str:
        """Return the path of a file by its name in the source. Raises KeyError."""
        if name not in self._by_name:
            raise KeyError(name)
        return f"{STATIC_PATH}{self.digest}/{name}"

    def size(self, name: str) -> int:
        """Return how many bytes of it are sent to a browser."""
        return len(self._by_name[name].compressed)

    async def serve(self, request: web.Request) -> web.Response:
        """GET /static/{digest}/{name}"""
        asset = self._by_name.get(request.match_info["name"])
        if asset is None or request.match_info["digest"] != self.digest:
            raise web.HTTPNotFound
        headers = {"Cache-Control": KEPT_FOR_GOOD, "Vary": "Accept-Encoding"}
        compress = "gzip" in request.headers.get("Accept-Encoding", "").lower()
        if compress:
            headers["Content-Encoding"] = "gzip"
        body = asset.compressed if compress else asset.body
        return web.Response(body=body, content_type=asset.content_type, charset="utf-8", headers=headers)
