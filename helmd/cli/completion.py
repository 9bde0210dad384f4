"""``helmctl completion``, and what the shells are offered. Imported whenever Tab is pressed, so it stays light."""

import os
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
    # Loaded from $fpath at the first completion: that completion is to be done as well.
    _helmctl_completion "$@"
else
    compdef _helmctl_completion helmctl
fi
"""


@click.command("completion", short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print what makes a shell complete helmctl's commands, options and service names.

    The package has put it in place already. From a checkout:

    \b
    bash: source <(helmctl completion bash)
    zsh:  source <(helmctl completion zsh)
    fish: helmctl completion fish | source
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    kinds: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    output.print_text(script(kinds[shell]))


def script(kind: "type[ShellComplete]") -> str:
    """The completion script for one shell; it asks helmctl itself, so it needs no command's name."""
    # Not source(): that one runs the shell to ask for its version, which a machine may not have.
    shell = kind(click.Group(), {}, PROGRAM, VARIABLE)
    text = shell.source_template % shell.source_vars()
    if "#compdef" not in text or "loadautofunc" in text:
        return text
    if _ZSH_SOURCED not in text:
        raise ValueError("click's script for zsh no longer ends as expected")
    return text.replace(_ZSH_SOURCED, _ZSH_EITHER)


def service_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Services whose names start with INCOMPLETE and that the command line doesn't have yet. Never raises or prints."""
    given = ctx.params.get(param.name or "") or ()
    # Click holds what was typed so far only where it parsed it as this very argument.
    present = {given} if isinstance(given, str) else set(given)
    return sorted(name for name in _known() - present if name.startswith(incomplete))


def _known() -> set[str]:
    """The configured services; with a faulty configuration those that are installed."""
    from helmd.model.errors import ConfigurationError
    from helmd.operations.configuration.load import load_settings, load_suite

    try:
        place = _layout()
        return set(load_suite(place, load_settings(place)).names)
    except ConfigurationError:
        units = (service_of(path.name) for path in place.units.glob("hivematrix-*.service"))
        return {name for name in units if name}
    except OSError:
        return set()


def _layout() -> Layout:
    """The suite's account: one's own, or for root the one that helmctl would act for."""
    import pwd

    if os.geteuid() == 0 and (account := owner(None)):
        try:
            entry = pwd.getpwnam(account)
        except KeyError:
            raise OSError(f"there is no account {account}") from None
        return layout({}, Path(entry.pw_dir), entry.pw_uid, SHARE)
    home = Path(os.environ.get("HOME") or os.path.expanduser("~"))
    return layout(os.environ, home, os.getuid(), SHARE)
