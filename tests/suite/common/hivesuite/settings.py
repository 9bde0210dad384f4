"""Settings of a sample service: from the environment, else from `.flaskenv` in its directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """One service's settings, read once at start."""

    name: str
    directory: Path
    host: str
    port: int
    mode: str
    environment: Mapping[str, str]

    def text(self, key: str, default: str = "") -> str:
        """Return the value of `key`; an empty value counts as unset."""
        return self.environment.get(key) or default

    def flag(self, key: str) -> bool:
        return self.environment.get(key) == "1"


def parse_flaskenv(text: str) -> dict[str, str]:
    """Parse `KEY=value` lines like python-dotenv: `export`, comments, single and double quotes."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.strip().removeprefix("export ").partition("=")
        key, value = key.strip(), value.strip()
        if not separator or not key or key.startswith("#"):
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        else:
            value = value.partition(" #")[0].rstrip()
        values[key] = value
    return values


def load_settings(name: str, default_port: int) -> Settings:
    """Return the settings of the service in the working directory; exit if the port is invalid."""
    directory = Path.cwd()
    try:
        declared = parse_flaskenv((directory / ".flaskenv").read_text(encoding="utf-8"))
    except FileNotFoundError:
        declared = {}
    environment = {**declared, **os.environ}
    port = environment.get("PORT") or environment.get(f"{name.upper()}_PORT") or str(default_port)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        sys.exit(f"{name}: PORT must be a number from 1 to 65535, not {port!r}")
    return Settings(
        name=name,
        directory=directory,
        host=environment.get("HOST") or "127.0.0.1",
        port=int(port),
        mode=environment.get("FLASK_ENV") or "production",
        environment=environment,
    )
