"""Which programs may send changing requests. A token is not enough, since services have the tokens of their users.

No I/O: `helmd.model.identity.peer.Peer` says who sent a request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import ClassVar

from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError
from helmd.model.identity.peer import Peer, Place
from helmd.model.identity.realm import GATEWAY
from helmd.model.suite.names import service_of, unit_of
from helmd.web.auth.roles import RECENT_LOGIN_SECONDS, Access, Identity

_MANAGER = "init.scope"
"""The unit of the user manager itself, which creates sockets for others and sends no requests."""
_USE_HELMCTL = "Use helmctl on the machine."


class PeerRefusedError(HelmError):
    """The caller has the right, but not the program that sent the request."""

    code: ClassVar[str] = "peer_refused"


class LoginNeededError(HelmError):
    """The caller has the right, but needs a recent login at Helm itself."""

    code: ClassVar[str] = "login_needed"


@dataclass(frozen=True, slots=True)
class Trust:
    """The settings about trusted peers. ``units`` are patterns of names (glob(7))."""

    units: tuple[str, ...] = ()
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Trust":
        return cls(settings.trusted_units, settings.trusted_proxies)

    def may_change(self, peer: Peer) -> bool:
        """Return whether PEER is on this host and not an untrusted service of the account."""
        if not peer.owned or (peer.unit.endswith(".scope") and peer.unit != _MANAGER):
            return True
        return peer.unit == unit_of(GATEWAY) or any(fnmatchcase(peer.unit, pattern) for pattern in self.units)

    def is_proxy(self, peer: Peer) -> bool:
        """Return whether the forwarding headers of PEER are trusted."""
        if peer.place is Place.HERE and peer.owned and service_of(peer.unit) is not None:
            return peer.unit == unit_of(GATEWAY)
        return self.has_address(peer)

    def is_reverse_proxy(self, peer: Peer) -> bool:
        """Return whether PEER is the admin's own reverse proxy, which terminates TLS, and not a service of the
        suite.
        """
        suite = peer.place is Place.HERE and peer.owned and service_of(peer.unit) is not None
        return not suite and self.has_address(peer)

    def has_address(self, peer: Peer) -> bool:
        """Return whether PEER has the address of a trusted proxy."""
        try:
            address = ip_address(peer.address)
        except ValueError:
            return False
        return any(address in network for network in self.proxies)


FORWARDED_HEADERS = ("X-Forwarded-For", "X-Forwarded-Proto")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The forwarding headers of a trusted proxy; empty without one."""

    address: str = ""
    scheme: str = ""


def forwarded(headers: Mapping[str, str], peer: Peer, trust: Trust) -> Forwarded:
    """Return the values of X-Forwarded-For and X-Forwarded-Proto, empty if PEER is not a trusted proxy.

    Of several addresses the last one counts, which the trusted proxy itself has added.
    """
    if not trust.is_proxy(peer):
        return Forwarded()
    address = headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    try:
        address = str(ip_address(address))
    except ValueError:
        address = ""
    scheme = headers.get("X-Forwarded-Proto", "").strip().lower()
    return Forwarded(address, scheme if scheme in ("http", "https") else "")


def check_peer(caller: Identity, access: Access, peer: Peer, trust: Trust, *, tls: bool, now: float) -> None:
    """Raise PeerRefusedError or LoginNeededError unless CALLER may use a route with this ACCESS from PEER.

    TLS says whether the caller's own connection is encrypted. NOW is in seconds since the epoch.
    """
    if caller.via == "socket":
        return
    if caller.via in ("machine", "session"):
        _check_not_of_suite(caller, peer)
    if not access.checked:
        return
    if peer.place is Place.UNKNOWN:
        raise _unknown(peer)
    if peer.place is Place.HERE and not trust.may_change(peer):
        raise PeerRefusedError(
            f"{peer.unit} may not change anything, whatever token it sends",
            hint=f"{_USE_HELMCTL} If this unit is to make changes, add it to http.trusted_units in helm.toml.",
        )
    if peer.place is Place.ELSEWHERE:
        _check_other_host(caller, peer, trust, tls)
    if access.recent_login:
        check_recent_login(caller, now)


def check_recent_login(caller: Identity, now: float, what: str = "this", link: str = "") -> None:
    """Raise LoginNeededError unless CALLER uses the unix socket, or has a recent login at Helm itself.

    WHAT needs that, as the beginning of a sentence; LINK is where to log in.
    """
    if caller.via == "socket" or (caller.login_at is not None and now - caller.login_at <= RECENT_LOGIN_SECONDS):
        return
    minutes = f"{RECENT_LOGIN_SECONDS / 60:g}"
    where = f"log in at {link}" if link else "open Helm at its own address (helmctl dashboard) and log in there"
    raise LoginNeededError(
        f"{what} needs a login at Helm itself within the last {minutes} minutes",
        hint=f"{_USE_HELMCTL} In a browser, {where}.",
    )


def _check_not_of_suite(caller: Identity, peer: Peer) -> None:
    """Raise PeerRefusedError for a service of the suite, which has stolen the credential of CALLER."""
    if peer.owned and service_of(peer.unit) is not None:
        what = "machine tokens" if caller.via == "machine" else "sessions of browsers"
        raise PeerRefusedError(
            f"services of the suite may not use {what}; {peer.unit} is one",
            hint="A service uses a token of Core that is its own.",
        )
    if caller.via == "machine" and peer.place is Place.UNKNOWN:
        raise _unknown(peer)


def _check_other_host(caller: Identity, peer: Peer, trust: Trust, tls: bool) -> None:
    if caller.via == "session" and not tls:
        raise PeerRefusedError(
            f"a session from another host ({peer.address}) needs TLS to change something",
            hint="Use the https address of a proxy that is in http.trusted_proxies in helm.toml, or: helmctl dashboard",
        )
    if caller.via == "token" and not trust.has_address(peer):
        raise PeerRefusedError(
            f"a user's token changes nothing from another host ({peer.address})",
            hint="Use a machine token (helmctl tokens). If a proxy sent this, add its address to http.trusted_proxies "
            "in helm.toml.",
        )


def _unknown(peer: Peer) -> PeerRefusedError:
    return PeerRefusedError(
        f"which program of this host sent the request ({peer.address or 'no address'}) can't be determined",
        hint=f"{_USE_HELMCTL} A program that is to make requests must run in a session or a unit of this host and keep "
        "its connection open until it has the answer; a proxy must run as a unit, named in http.trusted_units in "
        "helm.toml if that is one of this account.",
    )
