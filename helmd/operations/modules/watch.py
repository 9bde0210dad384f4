"""Watching a version of a module after its start: unit, health check, responses and logs.

Requests are sent directly and, if it has pages behind the gateway, through that, as helmd's technical account. The
responses are compared with those of the previous version.
"""

import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

from helmd.health.address import local_addresses
from helmd.health.peers import Peers
from helmd.health.probe import run_probe, unverified_context
from helmd.health.target import probe_of, url_host
from helmd.journal.lines import last_lines
from helmd.model.errors import DeniedError, HelmError, ModuleError
from helmd.model.identity.realm import GATEWAY, PROBE_USER
from helmd.model.layout import Layout
from helmd.model.modules.gate import Answer, GatePolicy, Observation, gate_verdict
from helmd.model.suite.names import unit_of
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health_request import USER_AGENT
from helmd.model.urls import origin_of
from helmd.operations.configuration.load import load_formats
from helmd.operations.identity.gateway_login import Gateway, GatewayBrowser, GatewayPageError
from helmd.operations.identity.probe_account import probe_password
from helmd.systemd.bus import Manager

PAGE, ASSET = "its page", "an asset of its page"
THROUGH = "through the gateway"
_ERRORS = frozenset({"ERROR", "CRITICAL"})
_REQUEST_SECONDS = 10.0
_LATE = f"no whole answer within {_REQUEST_SECONDS:g} s"
_LARGEST = 2 << 20
_LINES = 5_000
_ASSET = re.compile(
    r"""(?:src|href)\s*=\s*["']([^"'#?\s]+\.(?:css|js|mjs|png|svg|ico|jpe?g|webp|woff2?))(?:\?[^"']*)?["']""", re.I
)
_STATIC = ("static", "app/static", "public")
_TRIES, _PAUSE = 3, 1.0

Usual = Mapping[str, int]
"""The HTTP status of each request to the previous version."""


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    text: str = field(default="", repr=False)
    fault: str = ""


def ask(service: Service, path: str) -> _Reply:
    """Send GET PATH to a service of this host; return the response. Redirects are not followed."""
    parts, deadline = urlsplit(service.url), time.monotonic() + _REQUEST_SECONDS
    fault = "it has no address"
    try:
        found = local_addresses(url_host(service), service.port or 0, deadline)
    except (OSError, UnicodeError) as problem:
        return _Reply(0, fault=f"no connection ({problem})")
    for family, kind, protocol, _, address in found:
        with ExitStack() as stack:
            try:
                made = stack.enter_context(socket.socket(family, kind, protocol))
                made.settimeout(_REQUEST_SECONDS)
                made.connect(address)
                # A response that comes byte by byte, or does not end, does not exceed the socket's timeout.
                _limited(made, stack, max(0.1, deadline - time.monotonic()))
                if parts.scheme == "https":
                    made = stack.enter_context(unverified_context().wrap_socket(made, server_hostname=parts.hostname))
                client = HTTPConnection(parts.hostname or "localhost")
                client.sock = made
                client.request("GET", path, headers={"Host": parts.netloc, "User-Agent": USER_AGENT})
                response = client.getresponse()
                text = response.read(_LARGEST).decode("utf-8", "replace")
                if time.monotonic() < deadline:
                    return _Reply(response.status, text)
                fault = _LATE
            except TimeoutError:
                fault = _LATE
            except (OSError, HTTPException, ValueError) as problem:
                late = time.monotonic() >= deadline
                fault = _LATE if late else f"no answer ({getattr(problem, 'strerror', None) or problem})"
    return _Reply(0, fault=fault)


def _limited(connection: socket.socket, stack: ExitStack, seconds: float) -> None:
    """Make a timer shut down CONNECTION after SECONDS, unless STACK is closed before."""
    shared = stack.enter_context(connection.dup())

    def end() -> None:
        with suppress(OSError):
            shared.shutdown(socket.SHUT_RDWR)

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()
    stack.callback(timer.cancel)


def asset_of(page: str, base: str, directory: Path) -> str:
    """Return the path of an asset of PAGE, which is at BASE, or of a file below ``static``; empty if there is none.

    Paths on other origins are ignored.
    """
    for match in _ASSET.finditer(page):
        try:
            target = urlsplit(urljoin(f"http://module{base}", match[1]))
        except ValueError:
            continue
        if target.netloc == "module" and target.path.startswith(base):
            return str(target.path)
    for place in _STATIC:
        # Flask serves its package's static directory under /static.
        found = next((each for each in _files(directory / place) if each), "")
        if found:
            return f"{base}static/{found}"
    return ""


def _files(directory: Path) -> list[str]:
    try:
        return sorted(each.name for each in directory.iterdir() if each.is_file() and not each.name.startswith("."))
    except OSError:
        return []


class Requests:
    """Requests a module's page and an asset of it, directly and through the gateway. A context manager."""

    def __init__(
        self, layout: Layout, registry: Registry, name: str, running: Callable[[str], bool], seconds: float
    ) -> None:
        self._layout, self._registry, self._service, self._running = layout, registry, registry[name], running
        self._directory = layout.resolve(self._service.path)
        self._seconds = seconds
        self._stack = ExitStack()
        self._browser: GatewayBrowser | None = None
        self.trouble = ""
        """Why no requests are sent through the gateway; empty if they are, or there is none."""

    def __enter__(self) -> Self:
        if self._service.port is not None and self._service.health.check == "http":
            self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._browser is not None:
            self._browser.leave()
        self._stack.close()

    def _open(self) -> None:
        name, gateway = self._service.name, self._registry.services.get(GATEWAY)
        if name in (GATEWAY, "core") or gateway is None or gateway.external or not self._running(unit_of(GATEWAY)):
            return
        try:
            password = probe_password(self._layout)
        except DeniedError as error:
            self.trouble = error.sentence
            return
        if not password:
            return
        where = Gateway(origin_of(gateway.url), gateway.port or 0, unit_of(GATEWAY))
        browser = GatewayBrowser(where, Peers(self._layout.uid).peer, self._seconds)
        for left in range(_TRIES - 1, -1, -1):
            try:
                if self._browser is None:
                    self._browser = self._stack.enter_context(browser)
                browser.visit(f"/{name}/", PROBE_USER, password)
                self.trouble = ""
                return
            except GatewayPageError as error:
                self.trouble = error.sentence
                if left:
                    time.sleep(_PAUSE)
        self._browser = None

    def answers(self) -> tuple[Answer, ...]:
        """Return the present responses; empty for a module without HTTP."""
        if self._service.port is None or self._service.health.check != "http":
            return ()
        found = self._through(partial(ask, self._service), "/", "")
        if self._browser is not None:
            found += self._through(self._fetch, f"/{self._service.name}/", f" {THROUGH}")
        return tuple(found)

    def _through(self, ask_for: Callable[[str], _Reply], base: str, how: str) -> list[Answer]:
        page = ask_for(base)
        found = [Answer(f"{PAGE}{how}", page.status, page.fault)]
        if asset := asset_of(page.text if page.status == HTTPStatus.OK else "", base, self._directory):
            reply = ask_for(asset)
            found.append(Answer(f"{ASSET}{how}", reply.status, reply.fault))
        return found

    def _fetch(self, path: str) -> _Reply:
        assert self._browser is not None
        try:
            page = self._browser.fetch(path)
        except GatewayPageError as error:
            return _Reply(0, fault=error.sentence)
        return _Reply(page.status, page.text)


def errors_logged(layout: Layout, name: str, since: float, until: float) -> int:
    """Return the number of errors among the lines that a service printed between two times."""
    from helmd.model.logs.parsing.formats import parse_text

    try:
        formats = load_formats(layout)
    except HelmError:
        return 0
    lines = last_lines(unit_of(name), _LINES, since)
    texts = [(line.seconds, line.message.replace("\0", "")) for line in lines if line.seconds <= until]
    return sum(parse_text(formats, text, name, int(at * 1e6)).level in _ERRORS for at, text in texts)


def usual_errors(layout: Layout, name: str, seconds: float, started: float, now: float) -> int:
    """Return the number of errors that the active version logged in the last SECONDS, or after its start, if larger."""
    late = errors_logged(layout, name, now - seconds, now)
    return max(late, errors_logged(layout, name, started, started + seconds) if started else 0)


def observe_before(
    layout: Layout, registry: Registry, name: str, manager: Manager, seconds: float, say: Callable[[str], None]
) -> tuple[dict[str, int], int]:
    """Return the responses and logged errors of the active version, for comparison."""
    with Requests(layout, registry, name, lambda unit: manager.facts(unit).active, 60.0) as requests:
        usual = {each.what: each.status for each in requests.answers() if each.status}
        if requests.trouble:
            say(f"{name} is not asked through the gateway: {requests.trouble}")
    started = manager.facts(unit_of(name)).active_since
    return usual, usual_errors(layout, name, seconds, started, time.time())


def watch(layout: Layout, registry: Registry, name: str, manager: Manager, policy: GatePolicy, usual: Usual) -> None:
    """Watch a version that was started for as long as POLICY says. Raises ModuleError on the first failure.

    The requests are those in USUAL; requests that can't be compared are only sent directly.
    """
    service, unit = registry[name], unit_of(name)
    began, first = time.time(), None
    until = time.monotonic()
    seconds = policy.seconds + 60.0
    with Requests(layout, registry, name, lambda each: manager.facts(each).active, seconds) as requests:
        while True:
            facts, health = manager.facts(unit), run_probe(probe_of(service))
            answers = tuple(
                replace(each, usual=usual.get(each.what, 0))
                for each in requests.answers()
                if THROUGH not in each.what or each.what in usual
            )
            at = time.monotonic() - until
            errors = errors_logged(layout, name, began, time.time())
            now = Observation(at, facts.active, facts.restarts, health.started, health.sentence, errors, answers)
            first = first or now
            verdict = gate_verdict(policy, first, now)
            if verdict.failed:
                lines = [line.message for line in last_lines(unit, 10, began)]
                raise ModuleError(verdict.failed, hint=f"Its log: helmctl logs {name}", lines=lines)
            if any(THROUGH in each for each in usual) and requests.trouble and at >= policy.seconds:
                raise ModuleError(f"{PAGE} {THROUGH}: {requests.trouble}")
            if verdict.passed:
                return
            time.sleep(max(0.1, min(policy.interval, policy.seconds - at)))
