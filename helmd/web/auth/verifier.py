"""Cached token verification: a signature is verified once, and Core is asked about a session at intervals."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from helmd.web.auth.core import Core, CoreUnreachableError
from helmd.web.auth.keyring import Keyring
from helmd.web.auth.roles import Identity
from helmd.web.auth.single_flight import SingleFlight
from helmd.web.auth.tokens import BadTokenError, Bearer, check_time, key_id, verified

VERDICT_SECONDS = 40.0
"""Seconds for which Core's reply about a session is cached. A stream that checks every 15 s then ends within 60 s
(docs/api.md, "Who is calling")."""
RETRY_SECONDS = 15.0
"""Seconds after which a failed request about a session is repeated."""
MAX_KNOWN = 10_000


@dataclass(slots=True, eq=False)
class _Known:
    """A token. ``good`` is Core's last reply about its session, None before the first."""

    bearer: Bearer
    generation: int
    good: bool | None = None
    trouble: str = ""
    ask_at: float = 0.0


class Verifier:
    """Verifies tokens of CORE. WALL is in seconds since the epoch; CLOCK never goes back.

    While Core does not answer, a session once known to be valid stays so until its token expires; one that Core has
    never confirmed is refused, since it may have been revoked.
    """

    def __init__(
        self,
        core: Core,
        single_flight: SingleFlight,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._core = core
        self._single_flight = single_flight
        self._wall = wall
        self._clock = clock
        self._keyring = Keyring(core, single_flight, clock)
        # By a digest, so that neither a memory dump nor an error message contains a list of tokens.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    async def identity(self, token: str, fresh: bool = False) -> Identity:
        """Return the bearer of TOKEN. FRESH says that Core has just issued it, so that its session is valid.

        Raises BadTokenError and CoreUnreachableError.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        self._keyring.renew()
        known = self._recall(digest)
        if known is None:
            key = await self._keyring.key(key_id(token))
            bearer = verified(token, key, self._wall())
            # Another request with the same token may have added it meanwhile.
            known = self._recall(digest) or self._remember(digest, _Known(bearer, self._keyring.generation))
        check_time(known.bearer, self._wall())
        if fresh:
            known.good, known.ask_at = True, self._clock() + VERDICT_SECONDS
        if known.bearer.revocable:
            await self._check_session(known, token)
        return replace(known.bearer.identity, expires=known.bearer.expires)

    async def _check_session(self, known: _Known, token: str) -> None:
        if known.good is None or self._clock() >= known.ask_at:
            await self._single_flight.join(known, lambda: self._ask(known, token))
        if known.good is None:
            raise CoreUnreachableError(known.trouble)
        if not known.good:
            raise BadTokenError("the session has ended", hint="Log in again.")

    async def _ask(self, known: _Known, token: str) -> None:
        asked_at = self._clock()
        try:
            known.good = await self._core.lasts(token)
        except CoreUnreachableError as error:
            known.trouble = error.sentence
            known.ask_at = self._clock() + RETRY_SECONDS
        else:
            known.ask_at = asked_at + VERDICT_SECONDS

    def _recall(self, digest: bytes) -> _Known | None:
        known = self._known.get(digest)
        if known is None or known.generation != self._keyring.generation:
            return None
        self._known.move_to_end(digest)
        return known

    def _remember(self, digest: bytes, known: _Known) -> _Known:
        self._known[digest] = known
        self._known.move_to_end(digest)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return known
