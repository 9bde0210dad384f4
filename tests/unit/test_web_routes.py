"""The route table, and who is let through."""

from dataclasses import replace
from typing import cast

import pytest
from aiohttp import web

from helmd.web.api.services import Api
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Identity, Role
from helmd.web.routes import Route, install, routes
from tests.fakes import NoHealth, Statuses, unused_intake


async def nothing(request: web.Request) -> web.Response:
    return web.Response()


ROUTE = Route("GET", "/x", nothing, Role.CLIENT, "X")


@pytest.mark.parametrize("role", [None, "", "client", "admin"])
def test_a_route_without_a_role_refuses_start_up(role: object) -> None:
    with pytest.raises(ValueError, match="GET /x has no role"):
        install(web.Application(), [replace(ROUTE, role=cast(Role, role))], Callers())


@pytest.mark.parametrize(("role", "confined"), [(Role.BILLING, False), (Role.TECHNICIAN, True), (Role.PUBLIC, True)])
def test_a_route_for_billing_that_does_not_confine_itself_refuses_start_up(role: Role, confined: bool) -> None:
    with pytest.raises(ValueError, match="GET /x is open to billing without"):
        install(web.Application(), [replace(ROUTE, role=role, confined=confined)], Callers())
    install(web.Application(), [replace(ROUTE, role=Role.BILLING, confined=True)], Callers())


def test_a_route_that_is_there_twice_refuses_start_up() -> None:
    with pytest.raises(ValueError, match="twice"):
        install(web.Application(), [ROUTE, replace(ROUTE, role=Role.ADMIN)], Callers())


def test_ingest_is_for_services_admins_and_technicians() -> None:
    table = routes(Api(Statuses(), NoHealth()), unused_intake())
    ingest = [route for route in table if route.path.endswith("/ingest")]
    assert {route.path for route in ingest} == {"/api/logs/ingest", "/api/metrics/ingest"}
    assert all(route.role is Role.TECHNICIAN and route.services for route in ingest)


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
