"""``helmctl completion``, and the completion of service names. Runs at each Tab, so it imports little."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helmd.cli import output
from helmd.cli.account import owner
from helmd.cli.context import SHARE
from helmd.model.layout import Layout, layout
from helmd.model.suite.names import service_of

if TYPE_CHECKING:
    from click.shell_completion import ShellComplete

PROGRAM, VARIABLE = "helmctl", "_HELMCTL_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

_ZSH_SOURCED = "compdef _helmctl_completion helmctl;"
_ZSH_EITHER = """\
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    # Autoloaded from $fpath by the first completion, which must be completed, too.
    _helmctl_completion "$@"
else
    compdef _helmctl_completion helmctl
fi
"""


@click.command("completion", short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print a shell script that completes helmctl's commands, options and service names.

    The package has installed it already. From a checkout:

    \b
    bash: source <(helmctl completion bash)
    zsh:  source <(helmctl completion zsh)
    fish: helmctl completion fish | source
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    kinds: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    output.print_text(script(kinds[shell]))


def script(kind: "type[ShellComplete]") -> str:
    """Return the completion script for one shell. It calls helmctl, so it does not depend on the commands."""
    # Not source(), which runs the shell for its version: it may not be installed.
    shell = kind(click.Group(), {}, PROGRAM, VARIABLE)
    text = shell.source_template % shell.source_vars()
    if "#compdef" not in text or "loadautofunc" in text:
        return text
    if _ZSH_SOURCED not in text:
        raise ValueError("click's script for zsh no longer ends as expected")
    return text.replace(_ZSH_SOURCED, _ZSH_EITHER)


def service_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the services that start with INCOMPLETE and are not on the command line yet. Never raises or prints."""
    given = ctx.params.get(param.name or "") or ()
    # Click has the words typed so far only if it parsed them as this argument.
    present = {given} if isinstance(given, str) else set(given)
    return sorted(name for name in _known() - present if name.startswith(incomplete))


def log_words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return services, or completions of a term of a query. Never raises or prints."""
    from helmd.model.logs.query_language.complete import completions, values

    given: tuple[str, ...] = ctx.params.get(param.name or "") or ()
    if len(given) >= 2 and given[-1] in (":", "=", ">", "<", ">=", "<=", "!="):
        # bash takes words apart at these (COMP_WORDBREAKS), and wants the rest alone.
        return [value for value in values(given[-2].lstrip("-"), _known()) if value.startswith(incomplete)]
    names = service_names(ctx, param, incomplete)
    return names + completions(incomplete, _known()) if incomplete else names


def _known() -> set[str]:
    """Return the configured services; if the configuration is invalid, those with an installed unit."""
    from helmd.model.errors import ConfigurationError
    from helmd.operations.configuration.load import load_settings, load_suite

    try:
        paths = account_layout()
        return set(load_suite(paths, load_settings(paths)).names)
    except ConfigurationError:
        units = (service_of(path.name) for path in paths.units.glob("hivematrix-*.service"))
        return {name for name in units if name}
    except OSError:
        return set()


def names_of_account(names: Callable[[Layout], Iterable[str]], incomplete: str) -> list[str]:
    """Return those of the NAMES that the caller's account has that start with INCOMPLETE. Never raises or prints."""
    try:
        return sorted(name for name in names(account_layout()) if name.startswith(incomplete))
    except OSError:
        return []


def account_layout() -> Layout:
    """Return the layout of the caller's account, or for root that of the account that owns the suite.

    Raises OSError if there is no such account.
    """
    import pwd

    if os.geteuid() == 0 and (account := owner(None)):
        try:
            entry = pwd.getpwnam(account)
        except KeyError:
            raise OSError(f"there is no account {account}") from None
        return layout({}, Path(entry.pw_dir), entry.pw_uid, SHARE)
    home = Path(os.environ.get("HOME") or os.path.expanduser("~"))
    return layout(os.environ, home, os.getuid(), SHARE)
