"""The errors that Helm raises: a stable code, a sentence for the user, and what to do next.

The same object becomes an exit code in `helmd.cli.exits` and an HTTP status in `helmd.web.http.problems`, once each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from helmd.model.counted import counted
from helmd.model.printable import printable

if TYPE_CHECKING:
    from helmd.model.field_error import FieldError

CONTENT_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors that unexpected content can cause in a parser or encoder (RecursionError is a RuntimeError, UnicodeError a
ValueError). They are caught where one entry of many is processed, so that the others are not lost.
"""


class HelmError(Exception):
    """Base of every error that is shown to the user.

    ``sentence`` says what happened; ``hint`` says what to do next (may be empty); ``lines`` are the last log lines
    about it.
    """

    code: ClassVar[str] = "failed"

    def __init__(self, sentence: str, *, hint: str = "", lines: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint
        self.lines = tuple(lines)


class UnknownServiceError(HelmError):
    """No such service in the registry, nor any unit of that name."""

    code = "unknown_service"


class UsageError(HelmError):
    """The request is invalid; ``errors`` are the faults in its body."""

    code = "usage"

    def __init__(
        self, sentence: str, *, hint: str = "", lines: Sequence[str] = (), errors: "Sequence[FieldError]" = ()
    ) -> None:
        super().__init__(sentence, hint=hint, lines=lines)
        self.errors = tuple(errors)


class NotSetUpError(HelmError):
    """The account has no suite yet, or a part of it is missing."""

    code = "not_set_up"


class DeniedError(HelmError):
    """The caller may not do this."""

    code = "denied"


class BusError(HelmError):
    """The account's systemd manager can't be reached, or refused a call."""

    code = "bus"


class StoreError(HelmError):
    """The log store can't be reached or refused a statement."""

    code = "store"


class StoreTimeoutError(StoreError):
    """PostgreSQL cancelled a statement of the log store that took longer than its limit."""

    code = "store_timeout"


class StartFailedError(HelmError):
    """A unit's job ended in failure."""

    code = "start_failed"


class PortTakenError(HelmError):
    """Another process listens on a service's port."""

    code = "port_taken"


class UnitRefusedError(HelmError):
    """systemd-analyze rejected a rendered unit; nothing was installed."""

    code = "unit_refused"


class LockedError(HelmError):
    """Another process is at what only one may do at a time, or holds the place."""

    code = "locked"


class ModuleError(HelmError):
    """A module could not be installed, built, updated or rolled back; what was there before is still there."""

    code = "module"


class KeycloakError(HelmError):
    """Keycloak can't be reached, or refused a request."""

    code = "keycloak"


class KeycloakAwayError(KeycloakError):
    """Keycloak is not running, is starting, or does not answer."""

    code = "keycloak_away"


class FetchError(HelmError):
    """A download failed, or its checksum or content is wrong."""

    code = "fetch"


@dataclass(frozen=True, slots=True)
class Fault:
    """An error in a configuration file. ``line`` counts from 1; 0 if it concerns the whole file."""

    file: str
    line: int
    where: str
    sentence: str

    def __str__(self) -> str:
        file = printable(self.file)
        place = f"{file}:{self.line}" if self.line else file
        return f"{place}: {self.where}: {self.sentence}" if self.where else f"{place}: {self.sentence}"


class ConfigurationError(HelmError):
    """Configuration with faults, all of them listed; nothing was changed."""

    code = "configuration"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        sentence = f"{counted(len(self.faults), 'fault')} in the configuration; nothing was changed"
        super().__init__(sentence, hint="Correct the lines listed and run the command again.")
