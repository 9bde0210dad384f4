"""From where a change was asked for. By itself, since each helmctl start and stop records it."""

from typing import NamedTuple


class Origin(NamedTuple):
    """From where a change was asked for. Empty where that is not known."""

    via: str = ""
    """How the caller was authenticated (`helmd.web.auth.roles.Via`), or ``helmctl``."""
    address: str = ""
    """The caller's address, as far as trusted proxies say it."""
    unit: str = ""
    """The unit of this host that sent the request; ``elsewhere`` and ``unknown`` as in `helmd.model.identity.peer`."""
    session: str = ""
    """Identifies a session or a machine token; not a secret."""
