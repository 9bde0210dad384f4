"""``helmctl security firewall-script|apply|confirm|undo``: the firewall."""

import os
from typing import TYPE_CHECKING, Any, cast

import click

from helmd.cli import account, exits, output
from helmd.cli.context import SHARE, Context
from helmd.model.errors import DeniedError, HelmError, NotSetUpError

if TYPE_CHECKING:
    from helmd.model.security.firewall import FirewallKind, FirewallPlan

_KINDS = ("ufw", "iptables", "nftables")
"""As `FIREWALL_KINDS`, which most commands need not import."""

_kind = click.argument("kind", metavar="ufw|iptables|nftables", type=click.Choice(_KINDS))
_open = click.option("--open", "opened", metavar="SERVICE|PORT", multiple=True,
                     help="Let others reach this as well: a service, or a port such as 8443 or 51820/udp; may be "
                     "repeated.")  # fmt: skip
_allow_from = click.option("--allow-from", "networks", metavar="CIDR", multiple=True,
                           help="Only from this network, such as 192.168.1.0/24; may be repeated. SSH stays open to "
                           "all.")  # fmt: skip


@click.command("firewall-script", short_help="Print a script that sets up the firewall.")
@_kind
@_open
@_allow_from
@click.option("--plan", is_flag=True, help="Print what it opens and closes, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the script and the name of its file as JSON.")
@click.pass_obj
def firewall_script_command(
    context: Context, kind: str, opened: tuple[str, ...], networks: tuple[str, ...], plan: bool, as_json: bool
) -> None:
    """Print a script for sh(1) that closes this machine to others, but for SSH and the gateway.

    Run it as root. What it does is undone after a while unless it is confirmed; "sh SCRIPT --help" says how.
    """
    from helmd.model.security.firewall_script import script_file_name
    from helmd.operations.security.firewall import script_for
    from helmd.operations.security.firewall_apply import plan_document

    wanted = _plan(context, opened, networks)
    if plan:
        output.print_json(plan_document(wanted))
        return
    which = cast("FirewallKind", kind)
    text = script_for(SHARE, which, wanted)
    if as_json:
        output.print_json({"filename": script_file_name(which), "script": text})
    else:
        output.print_text(text)


@click.command("apply", short_help="As root: set up the firewall, with automatic revert.")
@_kind
@_open
@_allow_from
@click.option("--confirm-within", "seconds", metavar="SECONDS", type=click.IntRange(10, 3600), default=60,
              show_default=True, help="Undo it after so long, unless \"helmctl security confirm\" is run.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would be done, and the rules.")
@click.pass_context
def apply_command(
    ctx: click.Context, kind: str, opened: tuple[str, ...], networks: tuple[str, ...], seconds: int, dry_run: bool
) -> int:
    """Close this machine to others, but for SSH and the gateway, and undo that unless it is confirmed in time.

    Log in again over SSH before you confirm. A reboot before that undoes it as well.
    """
    from helmd.operations.security.firewall import script_for
    from helmd.operations.security.firewall_apply import run_new_script

    _check_root(f"apply {kind}")
    which = cast("FirewallKind", kind)
    text = script_for(SHARE, which, _plan_of_owner(ctx, opened, networks))
    if dry_run:
        return _ended(run_new_script(which, text, ["--dry-run"]))
    status = run_new_script(which, text, ["--confirm-within", str(seconds)])
    return _recorded(ctx, "apply", status, f"{kind}, to be confirmed within {seconds} s")


@click.command("confirm", short_help="As root: keep the firewall that was set up.")
@click.pass_context
def confirm_command(ctx: click.Context) -> int:
    """Keep the rules that "helmctl security apply" made, also after a reboot."""
    from helmd.operations.security.firewall_apply import run_kept_script

    _check_root("confirm")
    return _recorded(ctx, "confirm", run_kept_script("--confirm", ["pending"]), "")


@click.command("undo", short_help="As root: remove the firewall that was set up.")
@click.pass_context
def undo_command(ctx: click.Context) -> int:
    """Remove the rules that "helmctl security apply" made, confirmed or not."""
    from helmd.operations.security.firewall_apply import run_kept_script

    _check_root("undo")
    return _recorded(ctx, "undo", run_kept_script("--undo", ["pending", "confirmed"]), "")


AS_ROOT = ("apply", "confirm", "undo")
"""Those that stay root, instead of acting as the account that owns the suite."""


@click.command("record-firewall", hidden=True)
@click.argument("action", type=click.Choice(AS_ROOT))
@click.argument("result", type=click.Choice(("done", "failed")))
@click.argument("detail")
@click.pass_obj
def record_firewall_command(context: Context, action: str, result: str, detail: str) -> None:
    """Record in the audit trail what root did. Root's helmctl runs it as the account, whose trail it is."""
    from helmd.cli.audit import recorded

    with recorded(context, f"firewall {action}", "", detail) as outcome:
        outcome.good = result == "done"


FIREWALL_COMMANDS = (firewall_script_command, apply_command, confirm_command, undo_command, record_firewall_command)


def _check_root(words: str) -> None:
    if os.geteuid() != 0:
        raise DeniedError("only root can change the firewall", hint=f"Run: sudo helmctl security {words}")


def _ended(status: int) -> int:
    """Return the exit code for a script's exit status; the script has said why it failed."""
    return exits.OK if status == 0 else exits.FAILED


def _recorded(ctx: click.Context, action: str, status: int, detail: str) -> int:
    """Return the exit code, after a process of the account that owns the suite, if there is one, has recorded the
    ACTION.
    """
    import subprocess

    if (owner := _owner(ctx)) is not None:
        words = ["security", "record-firewall", action, "done" if status == 0 else "failed", detail]
        command, environment = account.command_as(owner, words)
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    return _ended(status)


def _owner(ctx: click.Context) -> str | None:
    """Return the account that owns the suite: the one named or set up, or the one that called sudo(8), or None for
    root's own.
    """
    owner = account.owner(ctx.find_root().params["account_name"]) or os.environ.get("SUDO_USER", "root")
    return None if owner == "root" else owner


def _plan(context: Context, opened: tuple[str, ...], networks: tuple[str, ...]) -> "FirewallPlan":
    from helmd.model.security.firewall import firewall_plan

    return firewall_plan(context.suite, context.settings.port, opened, networks)


def _plan_of_owner(ctx: click.Context, opened: tuple[str, ...], networks: tuple[str, ...]) -> "FirewallPlan":
    """Return the plan for the suite, from a process of the account that owns it: root reads none of its files."""
    import json
    import subprocess

    from helmd.operations.security.firewall_apply import plan_of_document

    owner = _owner(ctx)
    if owner is None:
        raise NotSetUpError(
            "root has no suite, and no dedicated account is set up on this machine",
            hint="Run, as the account that owns the suite: sudo helmctl security apply ...\n"
            "Or name the account: helmctl --account NAME security apply ...",
        )
    given = [word for each in opened for word in ("--open", each)]
    given += [word for each in networks for word in ("--allow-from", each)]
    command, environment = account.command_as(owner, ["security", "firewall-script", "nftables", "--plan", *given])
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise click.exceptions.Exit(done.returncode)
    try:
        found: Any = json.loads(done.stdout)
    except ValueError:
        found = None
    if found is None:
        raise HelmError(f"helmctl as {owner} printed no plan for the firewall")
    return plan_of_document(found)
