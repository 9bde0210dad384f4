"""The route table, and who is let through."""

from dataclasses import replace
from typing import cast

import pytest
from aiohttp import web

from helmd.model.identity.audit import AuditedChange
from helmd.web.api.services import Api
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Identity, PeerRule, Role
from helmd.web.route import Route, install
from helmd.web.routes import routes
from tests.fakes import NoHealth, Statuses, unused_intake


async def nothing(request: web.Request) -> web.Response:
    return web.Response()


def unrecorded(change: AuditedChange) -> None:
    raise AssertionError("nothing in this test changes anything")


ROUTE = Route("GET", "/x", nothing, Role.CLIENT, "X")


@pytest.mark.parametrize("role", [None, "", "client", "admin"])
def test_a_route_without_a_role_refuses_start_up(role: object) -> None:
    with pytest.raises(ValueError, match="GET /x has no role"):
        install(web.Application(), [replace(ROUTE, role=cast(Role, role))], Callers(), unrecorded)


@pytest.mark.parametrize(("role", "confined"), [(Role.BILLING, False), (Role.TECHNICIAN, True), (Role.PUBLIC, True)])
def test_a_route_for_billing_that_does_not_confine_itself_refuses_start_up(role: Role, confined: bool) -> None:
    with pytest.raises(ValueError, match="GET /x is open to billing without"):
        install(web.Application(), [replace(ROUTE, role=role, confined=confined)], Callers(), unrecorded)
    install(web.Application(), [replace(ROUTE, role=Role.BILLING, confined=True)], Callers(), unrecorded)


@pytest.mark.parametrize(
    ("method", "rule", "checked"),
    [
        ("GET", PeerRule.DEFAULT, False),
        ("HEAD", PeerRule.DEFAULT, False),
        ("GET", PeerRule.CHECKED, True),
        ("POST", PeerRule.DEFAULT, True),
        ("PUT", PeerRule.DEFAULT, True),
        ("DELETE", PeerRule.DEFAULT, True),
        ("POST", PeerRule.ANY, False),
        ("POST", PeerRule.CHECKED, True),
    ],
)
def test_what_changes_something_has_its_peer_checked_unless_the_route_says_otherwise(
    method: str, rule: PeerRule, checked: bool
) -> None:
    assert replace(ROUTE, method=method, peer=rule).access.checked is checked


@pytest.mark.parametrize("peer", [None, "", "any"])
def test_a_route_without_a_rule_for_its_peer_refuses_start_up(peer: object) -> None:
    with pytest.raises(ValueError, match="GET /x has no rule for its peer"):
        install(web.Application(), [replace(ROUTE, peer=cast(PeerRule, peer))], Callers(), unrecorded)


def test_a_route_without_a_credential_that_asks_for_a_checked_peer_refuses_start_up() -> None:
    route = replace(ROUTE, method="POST", role=Role.PUBLIC)
    with pytest.raises(ValueError, match="its rule must be ANY"):
        install(web.Application(), [route], Callers(), unrecorded)
    install(web.Application(), [replace(route, peer=PeerRule.ANY)], Callers(), unrecorded)


@pytest.mark.parametrize(
    ("method", "services", "peer", "audited"),
    [
        ("GET", False, PeerRule.DEFAULT, False),
        ("POST", False, PeerRule.DEFAULT, True),
        ("POST", False, PeerRule.ANY, True),
        ("POST", True, PeerRule.ANY, False),
        ("GET", False, PeerRule.CHECKED, True),
    ],
)
def test_all_changes_are_audited_but_ingest(method: str, services: bool, peer: PeerRule, audited: bool) -> None:
    assert replace(ROUTE, method=method, services=services, peer=peer).audited is audited


def test_a_recent_login_without_a_checked_peer_refuses_start_up() -> None:
    with pytest.raises(ValueError, match="recent login"):
        install(web.Application(), [replace(ROUTE, recent_login=True)], Callers(), unrecorded)


def test_a_route_that_is_there_twice_refuses_start_up() -> None:
    with pytest.raises(ValueError, match="twice"):
        install(web.Application(), [ROUTE, replace(ROUTE, role=Role.ADMIN)], Callers(), unrecorded)


def test_ingest_is_for_services_admins_and_technicians() -> None:
    table = routes(Api(Statuses(), NoHealth()), unused_intake())
    ingest = [route for route in table if route.path.endswith("/ingest")]
    assert {route.path for route in ingest} == {"/api/logs/ingest", "/api/metrics/ingest"}
    assert all(route.role is Role.TECHNICIAN and route.services and not route.checked for route in ingest)


def test_only_health_is_public_and_every_route_says_what_it_is_for() -> None:
    table = routes(Api(Statuses(), NoHealth()), unused_intake())
    assert [route.path for route in table if route.role is Role.PUBLIC] == ["/health"]
    assert all(route.summary for route in table)


@pytest.mark.parametrize(
    ("role", "open_to_it"),
    [
        (Role.CLIENT, {Role.PUBLIC, Role.CLIENT}),
        (Role.BILLING, {Role.PUBLIC, Role.CLIENT, Role.BILLING}),
        (Role.TECHNICIAN, {Role.PUBLIC, Role.CLIENT, Role.BILLING, Role.TECHNICIAN}),
        (Role.ADMIN, set(Role)),
    ],
)
def test_what_a_role_covers(role: Role, open_to_it: set[Role]) -> None:
    assert {asked for asked in Role if Identity("a", role, "socket").may(asked)} == open_to_it
