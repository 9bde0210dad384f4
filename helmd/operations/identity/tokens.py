"""Machine tokens: issuing, revoking, finding. Their hashes are in a file among the account's secrets.

helmctl and helmd both change that file; helmd checks at each request whether it was replaced, so that revoking a token
takes effect immediately. Neither PostgreSQL nor Core is needed.
"""

import logging
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.files.lock import locked
from helmd.model.errors import HelmError
from helmd.model.identity.machine_token import (
    SECRET_BYTES,
    TOKEN_PREFIX,
    MachineToken,
    NewToken,
    digest_of,
    looks_like_token,
    token_named,
    tokens_in,
    tokens_text,
    uses_in,
    uses_text,
    with_token,
)
from helmd.model.layout import Layout

SAVE_AGAIN = timedelta(seconds=60)
"""Maximum age of the file with the last uses."""
_LARGEST = 4 << 20

_log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class TokenStore:
    """The tokens of the account with these PLACES."""

    def __init__(self, places: Layout, now: Callable[[], datetime] = _now) -> None:
        self._path, self._uses_path, self._lock = places.machine_tokens, places.token_uses, places.token_lock
        self._now = now
        self._read_as: tuple[int, ...] | None = None
        self._tokens: tuple[MachineToken, ...] = ()
        self._by_digest: Mapping[str, MachineToken] = {}
        self._used: dict[str, datetime] = {}
        self._saved_at: datetime | None = None
        self.trouble = ""
        """Why the file can't be used, as a sentence; no token is valid then."""

    def tokens(self) -> tuple[MachineToken, ...]:
        """Return all tokens, from the present file; none if that can't be used (`trouble`)."""
        try:
            facts = os.lstat(self._path)
            version = (facts.st_ino, facts.st_mtime_ns, facts.st_size, facts.st_ctime_ns)
            if version != self._read_as:
                self._adopt(tokens_in(_text_of(self._path)), version, "")
        except FileNotFoundError:
            self._adopt((), None, "")
        except (OSError, ValueError) as error:
            self._adopt((), None, f"machine tokens can't be used: {self._path}: {error}")
        return self._tokens

    def _adopt(self, tokens: tuple[MachineToken, ...], version: tuple[int, ...] | None, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            _log.error("%s", trouble)
        self._tokens, self._read_as, self.trouble = tokens, version, trouble
        self._by_digest = {token.digest: token for token in tokens}

    def create(self, wanted: NewToken, by: str) -> tuple[MachineToken, str]:
        """Create a token; return it and its secret, which can't be retrieved later.

        Raises TokenExistsError, UsageError, LockedError, OSError, and HelmError while the file can't be used.
        """
        secret = TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        with locked(self._lock, "machine tokens are being changed"):
            tokens = with_token(
                self._usable(), wanted, id=secrets.token_hex(6), digest=digest_of(secret), by=by, now=self._now()
            )
            self._write(tokens)
        return tokens[-1], secret

    def revoke(self, wanted: str) -> MachineToken:
        """Remove the token with this id or name. Raises UnknownTokenError, and as `create`."""
        with locked(self._lock, "machine tokens are being changed"):
            tokens = self._usable()
            found = token_named(tokens, wanted)
            self._write(tuple(token for token in tokens if token is not found))
        return found

    def _usable(self) -> tuple[MachineToken, ...]:
        """Return the tokens; a file that can't be read is not overwritten."""
        tokens = self.tokens()
        if self.trouble:
            raise HelmError(self.trouble, hint="Correct it, or move it away: then no machine token is valid any more.")
        return tokens

    def _write(self, tokens: tuple[MachineToken, ...]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._path, tokens_text(tokens), 0o600)

    def find(self, secret: str) -> MachineToken | None:
        """Return the token with this SECRET and record its use; None if it does not exist or has expired."""
        if not looks_like_token(secret):
            return None
        self.tokens()
        found = self._by_digest.get(digest_of(secret))
        if found is None or found.expired(self._now()):
            return None
        self._used[found.id] = self._now()
        return found

    def last_uses(self) -> dict[str, datetime]:
        """Return the time of the last use of each token, by id, from the file and from this process."""
        try:
            known = uses_in(_text_of(self._uses_path))
        except (OSError, ValueError):
            known = {}
        return known | self._used

    @property
    def unsaved(self) -> bool:
        """Whether it is time to save the last uses."""
        return bool(self._used) and (self._saved_at is None or self._now() - self._saved_at >= SAVE_AGAIN)

    def save_uses(self) -> None:
        """Write the last uses of existing tokens to their file. Blocks. Never raises."""
        if not self._used:
            return
        self._saved_at = self._now()
        present = {token.id for token in self.tokens()}
        uses = {id: used for id, used in self.last_uses().items() if id in present}
        try:
            write_atomically(self._uses_path, uses_text(uses), 0o600)
        except OSError as error:
            _log.warning("when machine tokens were used can't be saved: %s: %s", self._uses_path, error.strerror)


def _text_of(path: Path) -> str:
    """Return the content of a private file. Raises OSError, and ValueError for one that is not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise ValueError("it is not a regular file of this account")
        if facts.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
        return file.read(_LARGEST).decode("ascii", "replace")
