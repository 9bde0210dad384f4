"""Resources that the components of helmd share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from helmd.journal.keys import JournalKeys
from helmd.model.layout import Layout
from helmd.operations.configuration.current import Current
from helmd.operations.identity.tokens import TokenStore
from helmd.operations.logs.ingest import Account
from helmd.store.session import Pool
from helmd.web.auth.identity import Callers


@dataclass(frozen=True, slots=True)
class Resources:
    """STORE and OWNER are conninfo strings of the log store, for Helm's role and for that which owns its tables;
    PREPARE brings the store's schema up to date. POOL and READERS are connections as Helm's role, the latter for
    searches alone.
    """

    places: Layout
    account: Account
    current: Current
    store: str
    owner: str
    prepare: Callable[[], Awaitable[None]]
    pool: Pool
    readers: Pool
    keys: JournalKeys
    tokens: TokenStore
    callers: Callers
