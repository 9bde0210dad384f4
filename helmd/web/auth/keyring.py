"""Cache of Core's keys."""

import logging
import time
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from helmd.web.auth.core import Core, CoreUnreachableError
from helmd.web.auth.single_flight import SingleFlight
from helmd.web.auth.tokens import BadTokenError

KEYS_MAX_AGE = 600.0
"""Seconds after which the keys are fetched again. While Core does not answer, the old ones stay in use."""
PAUSE_SECONDS = 5.0
"""Minimum number of seconds between two fetches, even if tokens name unknown keys."""

_log = logging.getLogger(__name__)


class Keyring:
    """CORE's keys. CLOCK is in seconds and never goes back."""

    def __init__(self, core: Core, single_flight: SingleFlight, clock: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._single_flight = single_flight
        self._clock = clock
        self._keys: Mapping[str, RSAPublicKey] = {}
        self._renewed: float | None = None
        self._tried: float | None = None
        self._trouble: CoreUnreachableError | None = None
        self.generation = 0
        """Incremented when the keys change: tokens verified with older keys must be verified again."""

    def renew(self) -> None:
        """Start fetching the keys if they are old, without waiting for that."""
        if self._old() and self._may_retry():
            self._single_flight.start(self, self._fetch)

    async def key(self, kid: str) -> RSAPublicKey:
        """Return the key of that id.

        Raises BadTokenError when Core has none, CoreUnreachableError when it does not answer.
        """
        if (kid not in self._keys or self._old()) and (self in self._single_flight or self._may_retry()):
            await self._single_flight.join(self, self._fetch)
        found = self._keys.get(kid)
        if found is not None:
            return found
        if self._trouble is not None:
            raise CoreUnreachableError(self._trouble.sentence, hint=self._trouble.hint)
        raise BadTokenError("the token is signed with an unknown key")

    def _old(self) -> bool:
        return self._renewed is None or self._clock() - self._renewed >= KEYS_MAX_AGE

    def _may_retry(self) -> bool:
        return self._tried is None or self._clock() - self._tried >= PAUSE_SECONDS

    async def _fetch(self) -> None:
        self._tried = self._clock()
        try:
            keys = await self._core.keys()
        except CoreUnreachableError as error:
            if self._trouble is None:
                _log.warning("%s; cached keys stay in use", error.sentence)
            self._trouble = error
            return
        if self._trouble is not None:
            _log.info("Core at %s answers again", self._core.url)
        self._trouble = None
        self._renewed = self._clock()
        if _numbers(keys) != _numbers(self._keys):
            self._keys = keys
            self.generation += 1


def _numbers(keys: Mapping[str, RSAPublicKey]) -> Mapping[str, object]:
    return {kid: key.public_numbers() for kid, key in keys.items()}
