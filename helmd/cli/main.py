"""The command tree: each command's module is imported only when that command runs."""

import importlib
import io
import sys
from types import TracebackType
from typing import Any

import click

from helmd import __version__
from helmd.cli import account, exits, job, output
from helmd.cli.arguments import CommandGroup
from helmd.cli.context import Context
from helmd.model.errors import ConfigurationError, HelmError, UsageError

COMMANDS = {
    "status": "status",
    "why": "why",
    "start": "control",
    "stop": "control",
    "restart": "control",
    "reload": "control",
    "try-restart": "control",
    "up": "control",
    "down": "control",
    "logs": "logs.command",
    "top": "top",
    "metrics": "metrics",
    "is-active": "queries",
    "is-healthy": "queries",
    "is-failed": "queries",
    "is-enabled": "queries",
    "wait": "queries",
    "show": "units",
    "cat": "units",
    "deps": "units",
    "diff": "units",
    "apply": "units",
    "edit": "units",
    "config": "config",
    "enable": "units",
    "disable": "units",
    "reset-failed": "units",
    "kill": "units",
    "setup": "setup",
    "keycloak": "keycloak",
    "postgres": "postgres",
    "backup": "backup",
    "restore": "backup",
    "verify": "backup",
    "jobs": "jobs",
    "import": "importing",
    "adopt": "adopt",
    "export": "exporting",
    "tokens": "tokens",
    "users": "users",
    "audit": "audit",
    "security": "security",
    "dashboard": "dashboard",
    "modules": "modules",
    "apps": "apps",
    "doctor": "doctor",
    "completion": "completion",
    "help": "helping",
    "version": "helping",
}
"""Command → module of `helmd.cli`, where a function called NAME_command (with _ for -) stands."""

ALIASES = {"ps": "status", "list": "status"}


class LazyGroup(CommandGroup):
    """Finds commands by COMMANDS, without importing the others."""

    aliases = ALIASES

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"helmd.cli.{COMMANDS[name]}")
        command: click.Command = getattr(module, name.replace("-", "_") + "_command")
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="helmctl")
@click.option("--account", "account_name", metavar="NAME", help="As root: act for this account's suite.")
@click.option("--job", "job_id", hidden=True)
@click.pass_context
def helmctl(ctx: click.Context, account_name: str | None, job_id: str | None) -> None:
    """Run the HiveMatrix suite: start and stop its services, show their state and explain it.

    Services are systemd user units, so "systemctl --user status hivematrix-NAME" and "journalctl --user-unit
    hivematrix-NAME" work as well.
    """
    import os

    if os.geteuid() == 0 and ctx.invoked_subcommand not in ("setup", "restore", "completion", "help", "version", None):
        # Some of its commands are about the machine, and stay root.
        if ctx.invoked_subcommand != "security":
            ctx.obj = account.context_of_root(account_name)
        return
    if account_name:
        account.become(account_name)
    account.find_user_manager(os.environ, os.getuid())
    ctx.obj = Context()
    if job_id:
        job.begin_job(ctx.obj.layout.jobs, job_id)


def print_error(error: HelmError) -> None:
    """An error as the command line shows it: what happened, the last log lines, what to do next."""
    output.print_message(output.Painted("error: ", "red", bold=True), error.sentence)
    if isinstance(error, ConfigurationError):
        for fault in error.faults:
            output.print_message(f"  {fault}")
    if isinstance(error, UsageError):
        # The sentence has the first.
        for field in error.errors[1:]:
            where = field.pointer.removeprefix("#").removeprefix("/")
            output.print_message(f"  {where}: {field.detail}" if where else f"  {field.detail}")
    for line in error.lines:
        output.print_message(f"  | {line}")
    for line in error.hint.splitlines():
        output.print_message(line)


def print_usage_error(error: click.ClickException) -> None:
    """An error of click's, as click shows it."""
    shown = io.StringIO()
    error.show(shown)
    for line in shown.getvalue().splitlines():
        output.print_message(line)


def print_traceback(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """For sys.excepthook: what Python prints about an error in Helm itself."""
    import traceback

    for line in "".join(traceback.format_exception(kind, error, at)).splitlines():
        output.print_message(line)


def run(words: list[str] | None = None) -> None:
    """Run helmctl and exit with one of the codes in `helmd.cli.exits`."""
    sys.excepthook = print_traceback
    output.open_closed_streams()
    output.use_locale_charset()
    failure: HelmError | None = None
    try:
        code, failure = _outcome(words)
    except BrokenPipeError:
        code = exits.OUTPUT_CLOSED
    job.end_job(code, failure)
    if not output.flush_streams():
        code = code or exits.FAILED
    sys.exit(code)


def _outcome(words: list[str] | None) -> tuple[int, HelmError | None]:
    """Run a command and print its error; return the exit code and the error. Raises BrokenPipeError."""
    try:
        ended: Any = helmctl.main(words, prog_name="helmctl", standalone_mode=False)
        return ended if isinstance(ended, int) else exits.OK, None
    except click.exceptions.Exit as ended_early:
        return ended_early.exit_code, None
    except click.Abort:
        output.print_message("aborted")
        return exits.INTERRUPTED, None
    except click.ClickException as error:
        print_usage_error(error)
        return exits.USAGE if isinstance(error, click.UsageError) else exits.FAILED, None
    except HelmError as error:
        print_error(error)
        return exits.exit_of(error.code), error
    except KeyboardInterrupt:
        return exits.INTERRUPTED, None
    except SystemExit as exiting:
        # click catches BrokenPipeError, and exits.
        if isinstance(exiting.__context__, BrokenPipeError):
            return exits.OUTPUT_CLOSED, None
        raise
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        failure = HelmError(f"{what}{error.strerror or error}")
        print_error(failure)
        return exits.DENIED if isinstance(error, PermissionError) else exits.FAILED, failure
