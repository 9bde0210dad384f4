"""The keys with which Helm signs its journal entries: a file among the account's secrets.

One key per line, the newest last: the time from which it is used (seconds since 1970), and 32 bytes in hexadecimal. The
newest key signs; older ones verify what was written before it was added. Writers create a missing file, readers do not:
as long as there is none, nothing was signed.
"""

import os
import re
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from helmd.model.errors import DeniedError
from helmd.model.ingest.signature import SigningKey, encoded, signed

_LINE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)[ \t]+([0-9a-f]{64})\s*\Z")
_LARGEST = 1 << 20


class JournalKeys:
    """The file at ``path``, read again whenever it has changed. It may be used by several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_as: tuple[int, ...] | None = None
        self._keys: tuple[SigningKey, ...] = ()
        self._lock = threading.Lock()
        self.trouble = ""
        """Why the file, or a part of it, cannot be used, as a sentence; empty if it can."""

    def keys(self) -> tuple[SigningKey, ...]:
        """Return all keys, oldest first; none if there is no file, the last known ones if it cannot be read."""
        with self._lock:
            return self._current()

    def _current(self) -> tuple[SigningKey, ...]:
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            self._read_as, self._keys, self.trouble = None, (), ""
            return ()
        except OSError as error:
            self._complain(f"{self.path} cannot be read: {error.strerror}")
            return self._keys
        version = (found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns)
        if version != self._read_as:
            self._read_as = version
            self._load()
        return self._keys

    def ensure(self) -> tuple[SigningKey, ...]:
        """Return all keys; create the first if there is no file. Raises OSError, and DeniedError if there is no key."""
        if not os.path.lexists(self.path):
            from helmd.files.durable import create_atomically

            create_atomically(self.path, f"{time.time():.6f} {os.urandom(32).hex()}\n")
        if not (keys := self.keys()):
            raise DeniedError(self.trouble or f"{self.path} holds no key", hint="Move it away; a new file is created.")
        return keys

    def create(self) -> None:
        """Create a missing file before it is needed. Never raises: `sign` tries again."""
        try:
            self.ensure()
        except (OSError, DeniedError) as error:
            self._complain(f"entries that Helm writes to the journal are not signed: {error}")

    def sign(self, fields: Mapping[str, str]) -> list[bytes]:
        """Return the signed fields of an entry as ``NAME=value``; without a signature if there is no usable key."""
        try:
            values = signed(fields, self.ensure()[-1], time.time_ns() // 1000)
        except (OSError, DeniedError) as error:
            reason = error.sentence if isinstance(error, DeniedError) else f"{self.path}: {error.strerror}"
            self._complain(f"entries that Helm writes to the journal are not signed: {reason}")
            values = encoded(fields)
        return [b"%b=%b" % (name.encode(), value) for name, value in values.items()]

    def _load(self) -> None:
        try:
            text = _text_of(self.path)
        except OSError as error:
            self._complain(f"{self.path} cannot be read: {error.strerror}")
            return
        except DeniedError as error:
            self._complain(error.sentence)
            return
        keys, faults = [], []
        for number, line in enumerate(text.splitlines(), 1):
            if found := _LINE.match(line):
                keys.append(SigningKey(round(float(found[1]) * 1_000_000), bytes.fromhex(found[2])))
            elif line.strip():
                faults.append(str(number))
        self._keys = tuple(keys)
        if faults:
            self._complain(
                f"{self.path}: invalid line {', '.join(faults[:5])}: must be a time and 64 hexadecimal digits"
            )
        else:
            self.trouble = ""

    def _complain(self, sentence: str) -> None:
        if sentence != self.trouble:
            # Imported here, since helmctl seldom needs it.
            import logging

            logging.getLogger(__name__).warning("%s", sentence)
        self.trouble = sentence


def _text_of(path: Path) -> str:
    """Return the file's text, after removing other accounts' access to it. Raises OSError, DeniedError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise DeniedError(f"{path} is not a regular file owned by this account")
        if facts.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
        return file.read(_LARGEST).decode("ascii", "replace")
