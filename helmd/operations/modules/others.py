"""Effects of a change of one module on other services: changed units, the realm in Keycloak, and restarts of services
whose configuration has changed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from helmd.model.errors import HelmError
from helmd.model.identity.realm import GATEWAY, wanted_realm
from helmd.model.layout import Layout
from helmd.model.suite.discovery import discovery_document
from helmd.model.suite.names import CLIENT_SECRET, service_behind, unit_of
from helmd.operations.configuration.apply import apply, changes, changes_for
from helmd.operations.configuration.effective import Effective, load_effective
from helmd.operations.setup.setup import realm_service
from helmd.systemd.bus import Manager


@dataclass(frozen=True, slots=True)
class SuiteBefore:
    """The suite before the module NAME is changed. ``pending`` are the units with changes that are not applied."""

    name: str
    suite: Effective
    pending: frozenset[str]


def suite_before(layout: Layout, name: str) -> SuiteBefore:
    """Return what `apply_to_others` compares with. Raises HelmError."""
    suite = load_effective(layout)
    return SuiteBefore(name, suite, frozenset(_pending(suite, layout)))


def _pending(suite: Effective, layout: Layout) -> list[str]:
    found = changes(suite.registry, layout, suite.settings, refused=suite.refused)
    return [each.unit for each in found if each.pending]


def apply_to_others(before: SuiteBefore, layout: Layout, manager: Manager, notify: Callable[[str], None]) -> bool:
    """Apply the effects of a change on the units of others; return whether the realm has to be changed as well.

    Changes that the admin had not applied before are skipped. Remaining tasks are reported with the command, and so are
    failures, since the module itself was changed.
    """
    name, after = before.name, load_effective(layout)
    again: list[str] = []
    try:
        units = [
            unit for unit in _pending(after, layout) if unit not in before.pending and service_behind(unit) != name
        ]
        again = _applied(units, after, layout, manager, notify)
    except HelmError as error:
        notify(f"warning: {error.sentence}. For what changes for other services: helmctl apply")
    known, knows = (discovery_document(each.registry, each.settings) for each in (before.suite, after))
    if known != knows and name != GATEWAY and GATEWAY in after.registry and GATEWAY not in again:
        again += [GATEWAY] if manager.facts(unit_of(GATEWAY)).active else []
    if again:
        notify(f"{', '.join(again)} must be restarted to know of it: helmctl restart {' '.join(again)}")
    return _concerns_realm(before, after)


def _applied(
    units: list[str], suite: Effective, layout: Layout, manager: Manager, notify: Callable[[str], None]
) -> list[str]:
    """Apply the changes of UNITS; return the running services among them, which must be restarted."""
    if not units:
        return []
    found = changes(suite.registry, layout, suite.settings, refused=suite.refused)
    applied = apply(changes_for(found, units), suite.registry, layout, suite.settings, manager)
    for notice in applied.notices:
        notify(f"warning: {notice}")
    again = []
    for change in applied.done:
        notify(f"{change.unit} {change.done}")
        service = suite.registry.services.get(service_behind(change.unit) or "")
        # Keycloak is restarted when its realm is set up, and PostgreSQL's databases were created and removed.
        if service is not None and service.type not in ("keycloak", "postgres") and change.kind == "changed":
            again += [service.name] if manager.facts(change.unit).active else []
    return again


def _concerns_realm(before: SuiteBefore, after: Effective) -> bool:
    """Return whether the realm must be changed, or the module does not have the secret of its client yet."""
    keycloak = realm_service(after.registry)
    if keycloak is None:
        return False
    service = after.registry.services.get(before.name)
    new = service is not None and before.name not in before.suite.registry
    if new and service is not None and CLIENT_SECRET in service.flaskenv.values():
        return True
    older = before.suite.registry.services.get(keycloak.name)
    if older is None:
        return False
    return wanted_realm(older, before.suite.registry, before.suite.settings) != wanted_realm(
        keycloak, after.registry, after.settings
    )
