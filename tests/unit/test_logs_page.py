"""The page of log entries: for whom it is, and which services it knows."""

import pytest

from helmd.model.suite.service import Registry, Service
from helmd.web.auth.roles import Identity, Role
from helmd.web.pages.logs import readable_services

SUITE = Registry({name: Service(name, url="http://localhost:1") for name in ("core", "codex", "ledger")})


@pytest.mark.parametrize(
    ("role", "confined_to", "seen"),
    [
        (Role.ADMIN, None, ("codex", "core", "helm", "ledger")),
        (Role.TECHNICIAN, None, ("codex", "core", "helm", "ledger")),
        (Role.BILLING, frozenset({"ledger", "unconfigured"}), ("ledger",)),
        (Role.BILLING, frozenset[str](), ()),
        (Role.CLIENT, None, ()),
    ],
)
def test_each_role_is_offered_the_services_whose_log_it_may_read(
    role: Role, confined_to: frozenset[str] | None, seen: tuple[str, ...]
) -> None:
    assert readable_services(Identity("ada", role, "session", services=confined_to), SUITE) == seen
