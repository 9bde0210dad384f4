"""``helmctl tokens``: tokens that Helm issues to programs."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from helmd.cli import output
from helmd.cli.arguments import CommandGroup
from helmd.cli.context import Context
from helmd.model.api.json_codec import to_json
from helmd.model.errors import HelmError
from helmd.model.identity.machine_token import DEFAULT_DAYS, TOKEN_ROLES, MachineToken, new_token_of

if TYPE_CHECKING:
    from helmd.operations.identity.tokens import TokenStore


@click.group("tokens", cls=CommandGroup, short_help="Issue, list and revoke tokens for programs.")
def tokens_command() -> None:
    """Issue tokens to programs that use Helm's API, list and revoke them.

    helmd need not run, and heeds a change at once.
    """


@tokens_command.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(TOKEN_ROLES), required=True, help="What the token may do, as for users.")
@click.option("--service", "services", metavar="NAME", multiple=True,
              help="Confine it to this service; may be repeated.")  # fmt: skip
@click.option("--expires", metavar="DURATION", default=f"{DEFAULT_DAYS}d", show_default=True,
              help="How long it is valid, at most a year: 12h, 90d.")  # fmt: skip
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def create_command(
    context: Context, name: str, role: str, services: tuple[str, ...], expires: str, reason: str, as_json: bool
) -> None:
    """Issue a token named NAME and print it, once.

    Only its hash is stored. Programs send it as "Authorization: Bearer TOKEN". Services of the suite may not use it.
    """
    from helmd.cli.audit import recorded
    from helmd.cli.caller import person

    wanted = new_token_of(name, role, list(services) or None, expires)
    with recorded(context, "create token", reason, str(wanted)):
        token, secret = _store(context).create(wanted, person())
    if as_json:
        output.print_json(to_json(token.created(secret, datetime.now(UTC))))
        return
    output.print_line(secret)
    output.print_message(f"It is not stored. Valid until {token.expires_at.isoformat(timespec='minutes')}.")


@tokens_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(context: Context, as_json: bool) -> None:
    """List the tokens, without their secrets. When one was last used is known to a minute."""
    store, now = _store(context), datetime.now(UTC)
    tokens, uses = store.tokens(), store.last_uses()
    if store.trouble:
        raise HelmError(store.trouble, hint="Correct it, or move it away: then no machine token is valid any more.")
    if as_json:
        output.print_json([to_json(token.body(uses.get(token.id), now)) for token in tokens])
        return
    header = ("NAME", "ROLE", "SERVICES", "EXPIRES", "LAST USED", "CREATED", "BY", "ID")
    for line in output.table(header, [_row(token, uses.get(token.id), now) for token in tokens]):
        output.print_line(*line)


@tokens_command.command("revoke")
@click.argument("token")
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.pass_obj
def revoke_command(context: Context, token: str, reason: str) -> None:
    """Revoke the token with this name or id. It is not valid any more once the command returns."""
    from helmd.cli.audit import recorded

    with recorded(context, "revoke token", reason, f"token {token}"):
        found = _store(context).revoke(token)
    output.print_message(f"Revoked {found.name} ({found.id}).")


def _row(token: MachineToken, used: datetime | None, now: datetime) -> tuple[str, ...]:
    expires = "expired" if token.expired(now) else _date(token.expires_at)
    services = "all" if token.services is None else ",".join(token.services)
    last = "never" if used is None else _date(used)
    return (token.name, token.role, services, expires, last, _date(token.created_at), token.created_by, token.id)


def _date(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def _store(context: Context) -> "TokenStore":
    from helmd.operations.identity.tokens import TokenStore

    return TokenStore(context.suite_layout)
