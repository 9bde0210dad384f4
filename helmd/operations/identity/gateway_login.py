"""A login at the gateway like a browser's, to get a page as forwarded by the gateway. Blocks, for a limited time.

Nothing is sent before the peer of the connection is identified as the gateway's unit: any service could listen on its
port while it does not. Therefore responses are not trusted.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from urllib.parse import urlencode, urljoin, urlsplit

from helmd.health.address import local_addresses
from helmd.health.probe import unverified_context
from helmd.model.errors import HelmError
from helmd.model.identity.peer import Peer, Place
from helmd.model.printable import printable
from helmd.model.urls import origin_of

LOGOUT_PATH = "/logout"
"""The path of the gateway that ends a session of its own."""
VISIT_SECONDS = 60.0
"""Time limit in seconds of the whole login, redirects and pages included."""
_REQUEST_SECONDS = 15.0
_MAX_REDIRECTS = 12
_LARGEST = 2 << 20
"""Maximum number of bytes read of a page."""
_MAX_COOKIES = 40
_LONGEST_COOKIE = 8 << 10
_REDIRECTS = (301, 302, 303, 307, 308)
_ACCEPTED_SECONDS = 0.5
"""Time limit in seconds for an established connection to be accepted by the listener."""
_AGENT = "HiveMatrix-Helm (page probe)"

LocatePeer = Callable[[socket.socket], Peer]


class GatewayPageError(HelmError):
    """The page could not be fetched; the text is the reason."""


class ProbeRefusedError(GatewayPageError):
    """Keycloak refuses the login of the technical account, so that a retry would fail as well."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The address of the gateway, and the unit that must be the peer. ``url`` is the origin that browsers use."""

    url: str
    port: int
    unit: str


@dataclass(frozen=True, slots=True)
class SeenPage:
    """A response."""

    url: str
    status: int
    location: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Form:
    """A form with a password field."""

    action: str
    hidden: Mapping[str, str]


class GatewayBrowser:
    """One browser without cookies, for `VISIT_SECONDS`. A context manager; LOCATE names the peer of a connection."""

    def __init__(self, gateway: Gateway, locate: LocatePeer, seconds: float = VISIT_SECONDS) -> None:
        self._gateway = gateway
        self._locate = locate
        self._cookies: dict[tuple[str, str], str] = {}
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._connection: socket.socket | None = None
        # A server that sends single bytes would not exceed the timeout of any read.
        self._watch = threading.Timer(seconds, self._give_up)
        self._watch.daemon = True

    def __enter__(self) -> "GatewayBrowser":
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()

    def see(self, path: str, username: str, password: str) -> str:
        """Return the page at PATH for the user, after a login.

        Raises GatewayPageError, ProbeRefusedError.
        """
        page = self.visit(path, username, password)
        if not _is_at(page, path):
            at = f"{page.status} for {printable(urlsplit(page.url).path, 80)}"
            raise GatewayPageError(f"the login of {username} does not end at the page, but with {at}")
        return page.text

    def visit(self, path: str, username: str, password: str) -> SeenPage:
        """As `see`, with any response after the login."""
        page = self._follow(SeenPage(self._gateway.url, 302, path, ""))
        form = None if _is_at(page, path) else _password_form(page.text)
        if form is not None:
            given = {**form.hidden, "username": username, "password": password}
            page = self._follow(self._ask("POST", page.url, form.action, given))
            if _password_form(page.text) is not None and not _is_at(page, path):
                raise ProbeRefusedError(f"Keycloak refused the login of {username}: the password is not valid")
        return page

    def fetch(self, path: str) -> SeenPage:
        """Return the response for PATH in this session, without following redirects. Raises GatewayPageError."""
        return self._ask("GET", self._gateway.url, path, None)

    def leave(self) -> None:
        """End the session at the gateway, and with it that at Core, if the gateway supports that. Never raises."""
        with contextlib.suppress(GatewayPageError):
            self._ask("GET", self._gateway.url, LOGOUT_PATH, None)

    def _follow(self, page: SeenPage) -> SeenPage:
        for _ in range(_MAX_REDIRECTS):
            if page.status not in _REDIRECTS:
                return page
            page = self._ask("GET", page.url, page.location, None)
        raise GatewayPageError(f"the login leads through more than {_MAX_REDIRECTS} redirects")

    def _ask(self, method: str, base: str, reference: str, form: Mapping[str, str] | None) -> SeenPage:
        try:
            url = urljoin(base, reference)
            parts, origin = urlsplit(url), origin_of(url)
        except ValueError:
            raise GatewayPageError("the login leads to an invalid URL") from None
        if origin != origin_of(self._gateway.url):
            raise GatewayPageError(f"the login leads to another origin ({printable(origin, 100)})")
        headers = {"Host": parts.netloc, "Accept": "text/html", "User-Agent": _AGENT, "Connection": "close"}
        path = parts.path or "/"
        if cookies := "; ".join(
            f"{name}={value}" for (name, at), value in self._cookies.items() if path.startswith(at)
        ):
            headers["Cookie"] = cookies
        body = None
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(form)
        try:
            with contextlib.closing(self._connect()) as connection:
                return self._exchange(connection, method, url, f"{path}?{parts.query}", body, headers)
        except TimeoutError:
            raise self._too_slow() from None
        except (OSError, HTTPException, ValueError) as problem:
            if time.monotonic() >= self._deadline:
                raise self._too_slow() from None
            raise GatewayPageError(f"the gateway does not answer: {printable(str(problem), 100)}") from None
        finally:
            self._connection = None

    def _exchange(
        self,
        connection: socket.socket,
        method: str,
        url: str,
        target: str,
        body: str | None,
        headers: Mapping[str, str],
    ) -> SeenPage:
        client = HTTPConnection(self._gateway.unit)
        client.sock = connection
        client.request(method, target.removesuffix("?"), body, dict(headers))
        response = client.getresponse()
        content = bytearray()
        while piece := response.read1(65536):
            content += piece
            if len(content) > _LARGEST:
                raise GatewayPageError(f"a page is longer than {_LARGEST >> 20} MiB")
        if time.monotonic() >= self._deadline:
            # The connection was closed here, which looks like the end of the response.
            raise TimeoutError
        for cookie in response.headers.get_all("Set-Cookie", []):
            self._take(cookie)
        return SeenPage(url, response.status, response.headers.get("Location", ""), content.decode("utf-8", "replace"))

    def _connect(self) -> socket.socket:
        """Return a connection to the gateway's unit.

        Raises GatewayPageError if another process listens there, and OSError.
        """
        host = urlsplit(self._gateway.url).hostname or "localhost"
        secure = urlsplit(self._gateway.url).scheme == "https"
        other = problem = ""
        for family, kind, protocol, _, address in local_addresses(host, self._gateway.port, self._deadline):
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(min(_REQUEST_SECONDS, max(0.1, self._deadline - time.monotonic())))
                made.connect(address)
                self._connection = made
                if secure:
                    # The peer is identified by the kernel; the handshake contains no secret.
                    made = self._connection = unverified_context().wrap_socket(made, server_hostname=host)
                other = self._other_peer(made)
                if not other:
                    return made
            except OSError as error:  # ssl.SSLError among them
                problem = str(error)
            made.close()
        if other:
            sentence = f"{other} answers on port {self._gateway.port}, not {self._gateway.unit}"
            raise GatewayPageError(f"{sentence}; no password was sent there")
        raise GatewayPageError(f"the gateway does not answer on port {self._gateway.port}: {printable(problem, 100)}")

    def _other_peer(self, connection: socket.socket) -> str:
        """Return the peer; empty if it is the gateway's unit."""
        until = time.monotonic() + _ACCEPTED_SECONDS
        while True:
            peer = self._locate(connection)
            if peer.place is Place.HERE and peer.owned and peer.unit == self._gateway.unit:
                return ""
            if peer.place is not Place.UNKNOWN or time.monotonic() > until:
                return peer.unit or "an unknown process"
            time.sleep(0.02)

    def _take(self, cookie: str) -> None:
        """Store a cookie, or remove it (RFC 6265, section 5.2); all are of one host."""
        pair, *attributes = cookie.split(";")
        name, found, value = pair.strip().partition("=")
        known = dict(each.strip().partition("=")[::2] for each in attributes)
        known = {key.lower(): given for key, given in known.items()}
        path = known.get("path", "/")
        place = name, path if path.startswith("/") else "/"
        too_many = len(self._cookies) >= _MAX_COOKIES and place not in self._cookies
        if not found or not name or len(pair) > _LONGEST_COOKIE or too_many or not pair.isprintable():
            return
        if known.get("max-age", "").strip() == "0" or not value:
            self._cookies.pop(place, None)
        else:
            self._cookies[place] = value

    def _give_up(self) -> None:
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _too_slow(self) -> GatewayPageError:
        return GatewayPageError(f"the login at the gateway took longer than {self._seconds:g} s")


def _is_at(page: SeenPage, path: str) -> bool:
    return page.status == HTTPStatus.OK and urlsplit(page.url).path == path


class _FormReader(HTMLParser):
    """The first form with a field for a password."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.form: _Form | None = None
        self._action: str | None = None
        self._hidden: dict[str, str] = {}
        self._asks = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in reversed(attrs)}
        if tag == "form":
            self._action, self._hidden, self._asks = given.get("action", ""), {}, False
        elif tag == "input" and self._action is not None:
            self._asks |= given.get("type", "").lower() == "password"
            if given.get("type", "").lower() == "hidden" and given.get("name"):
                self._hidden[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self._action is not None:
            if self._asks and self.form is None:
                self.form = _Form(self._action, self._hidden)
            self._action = None


def _password_form(text: str) -> _Form | None:
    reader = _FormReader()
    reader.feed(text)
    reader.close()
    return reader.form
