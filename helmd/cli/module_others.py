"""After a change of a module: what follows from it for the other services, so that no further command is needed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from helmd.cli import output
from helmd.cli.context import Context
from helmd.model.errors import HelmError
from helmd.model.suite.names import unit_of

if TYPE_CHECKING:
    from helmd.operations.configuration.effective import Effective

T = TypeVar("T")
_SETUP = "helmctl keycloak setup"


def with_others(context: Context, name: str, change: Callable[[], T]) -> T:
    """Carry out a CHANGE of the module NAME, then what follows from it for others; return what CHANGE returns."""
    from helmd.operations.modules.others import apply_to_others, suite_before

    before = suite_before(context.layout, name)
    done = change()
    if apply_to_others(before, context.layout, context.manager, output.print_message):
        _follow_realm(name)
    return done


def _follow_realm(name: str) -> None:
    """Have Keycloak's realm know the gateway, and the module the secret of its client. What can't be done is said."""
    from helmd.cli.keycloak import set_up_and_print
    from helmd.operations.configuration.effective import load_effective
    from helmd.operations.setup.setup import realm_service

    context = Context()
    suite = load_effective(context.layout)
    keycloak = realm_service(suite.registry)
    if keycloak is None:
        return
    if not context.layout.admin_client_secret.exists():
        output.print_message(f"Nobody can log in yet: the realm of {keycloak.name} is not set up. Run: {_SETUP}")
        return
    if not context.manager.facts(unit_of(keycloak.name)).active:
        output.print_message(
            f"{keycloak.name} is stopped, and its realm does not fit yet. Run: helmctl start {keycloak.name}; {_SETUP}"
        )
        return
    secret = _client_secret(context, suite, name)
    try:
        set_up_and_print(context, suite.registry, suite.settings)
    except HelmError as error:
        output.print_message(f"warning: {error.sentence}. Logins do not work before that is corrected; then: {_SETUP}")
        return
    if _client_secret(context, suite, name) != secret and context.manager.facts(unit_of(name)).active:
        from helmd.cli.module_install import operated

        operated("restart", (name,))


def _client_secret(context: Context, suite: "Effective", name: str) -> list[str]:
    from helmd.model.suite.names import CLIENT_SECRET
    from helmd.operations.configuration.module_files import variable_in_flaskenv

    service = suite.registry.services.get(name)
    if service is None:
        return []
    wanted = [key for key, value in service.flaskenv.items() if value == CLIENT_SECRET]
    return [variable_in_flaskenv(service, context.layout, key) for key in wanted]
