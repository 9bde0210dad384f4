"""Encryption by age(1) as a stream, so that plaintext is never written to disk.

Secret keys are never passed as arguments: an identity is a file, or passed through a pipe.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, cast

from helmd.model.backup.manifest import BackupError
from helmd.model.errors import NotSetUpError

AUTHENTICATION = "# hivematrix authentication key: "
"""The comment line in an identity file with the key of the HMAC over manifests."""
_SECONDS = 60.0
_MAX_IDENTITY = 16 << 10


@dataclass(frozen=True, slots=True)
class AgeIdentity:
    """The content of an age identity file, the secret key of archives. Never print it."""

    text: str = field(repr=False)

    @property
    def authentication(self) -> str:
        """The key by which an archive's manifest is signed; empty if the file has none."""
        lines = self.text.splitlines()
        return next((line.removeprefix(AUTHENTICATION) for line in lines if line.startswith(AUTHENTICATION)), "")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotSetUpError(f"{name}, which encrypts backups, is not installed", hint="Run: sudo apt install age")
    return found


def new_identity() -> tuple[AgeIdentity, str]:
    """Generate an identity; return it and its recipient."""
    made = subprocess.run([_program("age-keygen")], capture_output=True, text=True, timeout=_SECONDS, check=False)
    if made.returncode:
        raise BackupError(f"age-keygen failed: {_last_line(made.stderr)}")
    identity = AgeIdentity(made.stdout)
    return identity, recipient_of(identity)


def recipient_of(identity: AgeIdentity) -> str:
    """Return the public key of an identity. Raises BackupError if it is none."""
    done = subprocess.run(
        [_program("age-keygen"), "-y"],
        input=identity.text,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    found = done.stdout.strip().splitlines()
    if done.returncode or not found:
        raise BackupError(
            f"the identity can't be used: {_last_line(done.stderr)}",
            hint="Give the file that helmctl backup key has made: it has a line that begins with AGE-SECRET-KEY-1.",
        )
    return found[0]


@contextmanager
def encrypted_to(recipients: Sequence[str], descriptor: int) -> Iterator[IO[bytes]]:
    """Yield a file; what is written to it is encrypted for RECIPIENTS and written to DESCRIPTOR.

    Raises BackupError; then what was written is not complete.
    """
    words = [_program("age"), "--encrypt", *(word for each in recipients for word in ("--recipient", each))]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=descriptor, stderr=said, cwd="/")
        given = cast(IO[bytes], process.stdin)
        try:
            yield given
            given.close()
        except BrokenPipeError:
            process.wait()
            raise BackupError(_failed(said, "the archive could not be written")) from None
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.wait() != 0:
            raise BackupError(_failed(said, "the archive could not be written"))


class Decryption:
    """An archive being decrypted by age(1), which authenticates each chunk before output."""

    def __init__(self, process: "subprocess.Popen[bytes]", said: IO[bytes]) -> None:
        self._process = process
        self._said = said
        self._output = cast(IO[bytes], process.stdout)

    def read(self, count: int) -> bytes:
        """Read up to COUNT bytes; empty at the end, also of a truncated archive: see `check`."""
        return self._output.read(count)

    def check(self) -> None:
        """Raise BackupError if age found the archive damaged, truncated, or encrypted for another key.

        To be called at the end: only then is the archive known to be complete.
        """
        if self._output.read(1):
            return
        if self._process.wait():
            raise _refused(self._said)


@contextmanager
def decrypted(descriptor: int, identity: AgeIdentity) -> Iterator[Decryption]:
    """Yield the decrypted archive behind DESCRIPTOR, from its beginning. Raises BackupError."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = identity.text.encode("utf-8", "surrogateescape")
    if len(text) > _MAX_IDENTITY:
        raise BackupError("the file with the identity is too long to be one")
    reading, writing = os.pipe()
    try:
        try:
            # It fits into the pipe's buffer, so that the write does not block (pipe(7)).
            os.write(writing, text)
        finally:
            os.close(writing)
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [_program("age"), "--decrypt", "--identity", f"/dev/fd/{reading}"],
                stdin=descriptor,
                stdout=subprocess.PIPE,
                stderr=said,
                pass_fds=(reading,),
                cwd="/",
            )
            try:
                yield Decryption(process, said)
            finally:
                cast(IO[bytes], process.stdout).close()
                process.terminate()
                process.wait()
    finally:
        os.close(reading)


_REFUSALS = (
    ("no identity matched", "the key does not open this archive", "Give the identity that the archive was made for."),
    ("header MAC", "the archive's header was changed", ""),
    ("authenticate payload chunk", "the archive is damaged: a chunk of it was changed", ""),
    ("EOF", "the archive is cut short", ""),
    ("last chunk is empty", "the archive is cut short", ""),
    ("header", "this is not an archive that age has encrypted, or its beginning is damaged", ""),
    ("secret key", "the identity can't be used", "It has a line that begins with AGE-SECRET-KEY-1."),
    ("AGE-SECRET-KEY", "the identity can't be used", "It has a line that begins with AGE-SECRET-KEY-1."),
    ("identit", "the identity can't be used", "It has a line that begins with AGE-SECRET-KEY-1."),
)
"""Messages of age with our sentences; the first match counts."""


def _refused(said: IO[bytes]) -> BackupError:
    said.seek(0)
    text = said.read(10_000).decode(errors="replace")
    for words, sentence, hint in _REFUSALS:
        if words in text:
            return BackupError(sentence, hint=hint or "Use another copy of it, or an older backup.")
    return BackupError(f"the archive can't be decrypted: {_last_line(text)}")


def _failed(said: IO[bytes], what: str) -> str:
    said.seek(0)
    return f"{what}: {_last_line(said.read(10_000).decode(errors='replace'))}"


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if "report unexpected" not in line]
    return lines[-1][:300] if lines else "it gave no reason"
