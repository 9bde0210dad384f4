"""The suite's `services.json`, which Helm writes into the service's directory before each start."""

from __future__ import annotations

import json
import logging
from pathlib import Path

_log = logging.getLogger("app")


class Registry:
    """The names and URLs in `services.json`, read again when the file has changed.

    A missing file means no services. An invalid file is reported once, and the last valid content stays in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._urls: dict[str, str] = {}

    def urls(self) -> dict[str, str]:
        """Return URLs by service name, without trailing slash; empty if the file has none."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._seen, self._urls = None, {}
            return self._urls
        version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if version != self._seen:
            self._seen = version
            try:
                self._urls = _parse(self._path.read_text(encoding="utf-8"))
            except (OSError, ValueError, TypeError) as error:
                _log.error("cannot read %s: %s", self._path, error)
            else:
                print(f"✓ Loaded {len(self._urls)} services: {', '.join(sorted(self._urls))}", flush=True)
        return self._urls

    def url(self, name: str, default: str) -> str:
        """Return the URL of `name`, or `default` if the file has none."""
        return self.urls().get(name) or default


def _parse(text: str) -> dict[str, str]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError("it is not a JSON object")
    urls: dict[str, str] = {}
    for name, entry in content.items():
        if not isinstance(entry, dict):
            raise TypeError(f"the entry of {name!r} is not an object")
        urls[name] = str(entry.get("url") or "").rstrip("/")
    return urls
