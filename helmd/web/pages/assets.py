"""Style sheets, scripts and images of pages, under names that contain a digest of their content.

So a browser may keep them for good, and gets a new one when the package changes.
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

    name: str
    content_type: str
    body: bytes
    compressed: bytes


class Assets:
    """The files of DIRECTORY, read once."""

    def __init__(self, directory: Path = STATIC) -> None:
        self._by_source: dict[str, Asset] = {}
        for path in sorted(directory.iterdir()):
            if path.is_file():
                body = path.read_bytes()
                digest = hashlib.sha256(body).hexdigest()[:_DIGITS]
                kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                name = f"{path.stem}.{digest}{path.suffix}"
                self._by_source[path.name] = Asset(name, kind, body, gzip.compress(body, mtime=0))
        self._by_name = {asset.name: asset for asset in self._by_source.values()}

    def url(self, source: str) -> str:
        """The path of a file by its name in the source. Raises KeyError."""
        return STATIC_PATH + self._by_source[source].name

    async def serve(self, request: web.Request) -> web.Response:
        """GET /static/{name}"""
        asset = self._by_name.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        headers = {"Cache-Control": KEPT_FOR_GOOD, "Vary": "Accept-Encoding"}
        compress = "gzip" in request.headers.get("Accept-Encoding", "").lower()
        if compress:
            headers["Content-Encoding"] = "gzip"
        body = asset.compressed if compress else asset.body
        return web.Response(body=body, content_type=asset.content_type, charset="utf-8", headers=headers)
