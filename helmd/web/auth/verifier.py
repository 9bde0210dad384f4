"""Whether a token is good, told quickly: a signature is checked once, and Core asked about a session now and then."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from helmd.web.auth.core import Core, CoreUnreachableError
from helmd.web.auth.keyring import Keyring
from helmd.web.auth.roles import Identity
from helmd.web.auth.single_flight import SingleFlight
from helmd.web.auth.tokens import BadTokenError, Bearer, check_time, key_id, verified

VERDICT_SECONDS = 40.0
"""How long Core's word about a session counts. With this, a stream that asks every 15 s ends within 60 s
(docs/api.md, "Who is calling")."""
RETRY_SECONDS = 15.0
"""When Core is asked again about a session that it could not be asked about."""
MAX_KNOWN = 10_000


@dataclass(slots=True, eq=False)
class _Known:
    """One token. ``good`` is Core's last word about its session, None before it has said any."""

    bearer: Bearer
    generation: int
    good: bool | None = None
    trouble: str = ""
    ask_at: float = 0.0


class Verifier:
    """Knows the good tokens of CORE. WALL is in seconds since the epoch; CLOCK never goes back.

    While Core doesn't answer, a session once known to be good stays so until its token expires; one that Core has never
    been asked about is not let in, since nobody can tell whether it was revoked.
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
        # By a digest: neither a dump of memory nor a slip in a message shall hold a list of tokens.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    async def identity(self, token: str) -> Identity:
        """Who shows TOKEN. Raises BadTokenError and CoreUnreachableError."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        self._keyring.renew()
        known = self._recall(digest)
        if known is None:
            key = await self._keyring.key(key_id(token))
            bearer = verified(token, key, self._wall())
            # Another request with the same token may have been quicker.
            known = self._recall(digest) or self._remember(digest, _Known(bearer, self._keyring.generation))
        check_time(known.bearer, self._wall())
        if known.bearer.revocable:
            await self._check_session(known, token)
        return known.bearer.identity

    async def _check_session(self, known: _Known, token: str) -> None:
        if known.good is None or self._clock() >= known.ask_at:
            await self._single_flight.join(known, lambda: self._ask(known, token))
        if known.good is None:
            raise CoreUnreachableError(known.trouble)
        if not known.good:
            raise BadTokenError("the session has ended", hint="Log in again.")

    async def _ask(self, known: _Known, token: str) -> None:
        begun = self._clock()
        try:
            known.good = await self._core.lasts(token)
        except CoreUnreachableError as error:
            known.trouble = error.sentence
            known.ask_at = self._clock() + RETRY_SECONDS
        else:
            known.ask_at = begun + VERDICT_SECONDS

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
