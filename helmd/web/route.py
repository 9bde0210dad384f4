"""A route: authorization and what is done around its handler. `helmd.web.routes` has the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from helmd.model.errors import DeniedError, HelmError
from helmd.model.suite.names import SERVICE_NAME
from helmd.web.auth.audit import AuditTrail, Record
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Access, Identity, PeerRule, Role
from helmd.web.http.negotiation import check_acceptable
from helmd.web.http.problems import PREFIX, Handler, RequestRefusedError
from helmd.web.reply import Reply

_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Route:
    """A method and path. ``role`` is the minimum role of users.

    ``services``, ``anonymous`` and ``recent_login`` are as in `Access`. ``confined`` says that the handler shows only
    data of the services in ``request["identity"].services``, as routes with the role BILLING must.
    """

    method: str
    path: str
    handler: Handler
    role: Role
    summary: str
    services: bool = False
    anonymous: bool = False
    confined: bool = False
    peer: PeerRule = PeerRule.DEFAULT
    """Which programs may send requests: ANY or CHECKED. By default any program's that reads, but only a checked one's
    that changes something.
    """
    recent_login: bool = False
    conditional: bool = False
    """Whether requests must have ``If-Match`` (`helmd.web.http.negotiation.required_match`)."""
    query: type | None = None
    """The parameters, as a dataclass."""
    request: Any = None
    """The type of the body; None where there is none."""
    reply: Reply | None = None

    @property
    def checked(self) -> bool:
        """Whether the program that sends the request must be one that may change things."""
        return self.peer is PeerRule.CHECKED or (self.peer is PeerRule.DEFAULT and self.method not in _READING)

    @property
    def audited(self) -> bool:
        """Whether requests are recorded in the audit trail: those that change something, ingest aside."""
        return self.checked or (self.method not in _READING and not self.services)

    @property
    def access(self) -> Access:
        """The callers that may use it."""
        return Access(self.role, self.services, self.anonymous, self.checked, self.recent_login)

    @property
    def fault(self) -> str | None:
        """What is wrong with this definition, as the end of a sentence, or None."""
        if not isinstance(self.role, Role):
            return "has no role"
        if self.confined != (self.role is Role.BILLING):
            return "is open to billing without being confined, or confined without being open to billing"
        if not isinstance(self.peer, PeerRule):
            return "has no rule for its peer"
        if self.checked and self.role is Role.PUBLIC:
            return "takes requests without a credential, so no peer can be checked: its rule must be ANY"
        if self.recent_login and not self.checked:
            return "asks for a recent login, but not for a checked peer"
        return None


def install(application: web.Application, table: Sequence[Route], callers: Callers, record: Record) -> None:
    """Add the routes of TABLE, with their checks. Raises ValueError for one without access rule, or defined twice.

    RECORD is called with every changing request, including refused ones.
    """
    trail = AuditTrail(record, callers)
    known: set[tuple[str, str]] = set()
    for route in table:
        if fault := route.fault:
            raise ValueError(f"the route {route.method} {route.path} {fault}")
        if (route.method, route.path) in known:
            raise ValueError(f"the route {route.method} {route.path} is there twice")
        known.add((route.method, route.path))
        guarded = _guarded(route, callers, trail)
        if route.audited:
            guarded = _recorded(route, guarded, trail)
        for path in (route.path, PREFIX + route.path):
            application.router.add_route(route.method, path, guarded)
            if route.method == "GET":
                application.router.add_route("HEAD", path, guarded)


def _guarded(route: Route, callers: Callers, trail: AuditTrail) -> Handler:
    access = route.access

    async def handle(request: web.Request) -> web.StreamResponse:
        request["route"] = route
        identity = await callers.authorize(request, access)
        _check_confined(route, identity, request.match_info.get("name"))
        request["identity"] = identity
        if route.audited:
            request["origin"] = trail.origin(request, identity)
        # For long-running handlers: raises once the token has expired or its session has ended.
        request["recheck"] = partial(callers.authorize, request, access)
        if route.reply is not None:
            check_acceptable(request, route.reply.media)
        return await route.handler(request)

    return handle


def _check_confined(route: Route, caller: Identity | None, service: str | None) -> None:
    """Raise DeniedError for a CALLER who is confined to some services, unless the route is, or is about one of them.

    What a service posts, its handler looks at; what any user may see is the state of services.
    """
    if caller is None or caller.services is None or route.confined or route.services:
        return
    if route.role not in (Role.PUBLIC, Role.CLIENT) and service not in caller.services:
        raise DeniedError(f"{caller.name} is confined to some services, and this is not about one of them")


def _recorded(route: Route, handler: Handler, trail: AuditTrail) -> Handler:
    """Return HANDLER with a record of each request in the audit trail."""
    action = f"{route.method} {route.path}"

    async def handle(request: web.Request) -> web.StreamResponse:
        error: HelmError | None = None
        status = 0
        try:
            response = await handler(request)
            status = response.status
        except HelmError as raised:
            error = raised
            raise
        except RequestRefusedError as refused:
            status = refused.status
            raise
        except web.HTTPException as answer:
            status = answer.status
            raise
        finally:
            service = request.match_info.get("name", "")
            trail.request(request, action, service if SERVICE_NAME.match(service) else "", error, status)
        return response

    return handle
