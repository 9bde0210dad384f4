"""Sessions of browsers on disk: a file for each, mode 0600, which survive restarts of helmd, without PostgreSQL.

A file is named by a digest of the session's id, so that the directory contains no valid cookies.
"""

import dataclasses
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helmd.files.beneath import opened_directory, read_in
from helmd.files.durable import write_in
from helmd.model.identity.sessions import BrowserSession

_NAME = re.compile(r"([0-9a-f]{64})\.json\Z")
_TEXTS = ("name", "token", "refresh", "issuer", "subject", "sid")
_TIMES = ("began", "seen", "checked")

_log = logging.getLogger(__name__)


class SessionFiles:
    """The sessions in DIRECTORY, which is created when the first one is written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self) -> dict[str, BrowserSession]:
        """Return all sessions by digest. Invalid files are logged and skipped."""
        found: dict[str, BrowserSession] = {}
        try:
            with opened_directory(self._directory) as directory:
                for path in sorted(self._directory.iterdir()):
                    if name := _NAME.match(path.name):
                        try:
                            found[name[1]] = session_of(json.loads(read_in(directory, path.name) or b""))
                        except (OSError, ValueError, RecursionError) as error:
                            _log.warning("the session %s can't be read and has ended: %s", path, error)
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("the sessions in %s can't be read and have ended: %s", self._directory, error)
        return found

    def write(self, digest: str, session: BrowserSession) -> None:
        """Store a session durably. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(session))
        with opened_directory(self._directory) as directory:
            write_in(directory, f"{digest}.json", text.encode(), 0o600)

    def remove(self, digest: str) -> None:
        """Remove a session, if it exists. Raises OSError."""
        (self._directory / f"{digest}.json").unlink(missing_ok=True)


def session_of(stored: object) -> BrowserSession:
    """Convert JSON to a session. Raises ValueError if invalid."""
    if not isinstance(stored, dict):
        raise ValueError("it is not a JSON object")
    known = {field.name for field in dataclasses.fields(BrowserSession)}
    given = {name: value for name, value in stored.items() if name in known}
    wrong = [name for name in _TEXTS if not isinstance(given.get(name, ""), str)]
    wrong += [name for name in _TIMES if not _is_time(given.get(name))]
    wrong += ["login"] if not (given.get("login") is None or _is_time(given["login"])) else []
    wrong += ["tls"] if not isinstance(given.get("tls", False), bool) else []
    groups = given.get("groups", [])
    if not isinstance(groups, list) or not all(isinstance(each, str) for each in groups):
        wrong.append("groups")
    if wrong or "name" not in given:
        raise ValueError(f"these members are missing or wrong: {', '.join(wrong or ['name'])}")
    return BrowserSession(**_with_tuple(given, groups))


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12


def _with_tuple(given: Mapping[str, Any], groups: list[str]) -> dict[str, Any]:
    return {**given, "groups": tuple(groups)}
