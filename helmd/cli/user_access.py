"""What the commands about users have in common: access to them, the record of a change, and how a user is printed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import click

from helmd.cli import output
from helmd.cli.context import Context

if TYPE_CHECKING:
    from helmd.cli.audit import Outcome
    from helmd.model.identity.users import RealmUser
    from helmd.operations.identity.users import Confirm, Users

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
REASON_OPTION = click.option("--reason", default="", help="Why, for the audit trail.")


def realm_users(context: Context, confirm: "Confirm | None" = None) -> "Users":
    """Return the users. CONFIRM may refuse what concerns admins."""
    from helmd.operations.identity.user_access import UserAccess, no_confirmation

    access = UserAccess(context.layout, lambda: (context.suite, context.settings), lambda: context.manager)
    return access.users(confirm or no_confirmation)


@contextmanager
def recorded_change(context: Context, action: str, reason: str, detail: str) -> Iterator["Users"]:
    """Yield the users, for a change that is recorded in the audit trail."""
    with audited_change(context, action, reason, detail):
        yield realm_users(context)


def audited_change(context: Context, action: str, reason: str, detail: str) -> "AbstractContextManager[Outcome]":
    """Record a change in the audit trail."""
    from helmd.cli.audit import recorded

    return recorded(context, action, reason, detail)


def print_user(user: "RealmUser", sentence: str, as_json: bool, password: str = "") -> None:
    """Print the result of a change, with a generated PASSWORD."""
    if as_json:
        output.print_json({**user_json(user), **({"password": password} if password else {})})
        return
    if password:
        output.print_line(password)
    output.print_message(sentence)
    if password:
        output.print_message("The password is not stored, and must be changed at the first login.")


def user_json(user: "RealmUser") -> dict[str, Any]:
    """Return a user as JSON."""
    return {
        "id": user.id,
        "username": user.username,
        "email": user.email or None,
        "first_name": user.first_name or None,
        "last_name": user.last_name or None,
        "enabled": user.enabled,
        "email_verified": user.email_verified,
    }
