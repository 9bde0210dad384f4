"""Arguments and options that several commands share."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from helmd.model.errors import UsageError


class Duration(click.ParamType):
    """Seconds, as ``90``, ``90s``, ``500ms`` or ``2min``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        from helmd.model.config import validators as values

        try:
            return values.duration(float(value) if re.fullmatch(r"\d+(\.\d+)?", str(value)) else value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


class ExistingPath(click.Path):
    """A file or directory that exists. click takes one that this account may not look at for missing.

    As root's files are, when helmctl acts for an account. Raises UsageError for such a path.
    """

    def __init__(self, directory: bool = False, dash: bool = False) -> None:
        super().__init__(exists=True, file_okay=not directory, dir_okay=directory, allow_dash=dash, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            os.stat(value)
        except PermissionError:
            raise _unreadable(Path(value), self) from None
        except (OSError, ValueError):
            # Which click reports.
            pass
        return super().convert(value, param, ctx)


def _unreadable(path: Path, kind: ExistingPath) -> "UsageError":
    from helmd.files.account_names import name_of_uid
    from helmd.model.errors import UsageError

    account = name_of_uid(os.getuid())
    hint = "Copy it to a place that the account can read, such as /tmp."
    if kind.allow_dash:
        hint = "Give it on standard input instead: - < FILE"
    elif kind.dir_okay:
        hint = f"Give {account} the right to read it, and what is in it."
    return UsageError(f"{account} can't read {path}", hint=hint)


class CommandGroup(click.Group):
    """Refuses unknown commands, with the one that may be meant.

    click takes one that does not begin with a letter or digit for an option, prints help, and exits with 0: "?", or
    "—help" with a dash from a web page.
    """

    aliases: Mapping[str, str] = MappingProxyType({})

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if ctx.resilient_parsing or self.get_command(ctx, args[0]) is not None:
            return super().resolve_command(ctx, args)
        import difflib

        names = self.list_commands(ctx)
        begun = [name for name in names if args[0] and name.startswith(args[0])]
        close = begun or difflib.get_close_matches(args[0], [*names, *self.aliases], n=1)
        raise click.UsageError(f"No such command '{args[0]}'." + (f" Did you mean '{close[0]}'?" if close else ""), ctx)


def point_in_time(option: str, text: str | None) -> int | None:
    """Return a time as journalctl takes it, in microseconds since 1970. Raises UsageError, which names OPTION."""
    if text is None:
        return None
    from helmd.model.errors import UsageError
    from helmd.systemd.timestamp import parse_timestamp

    try:
        return parse_timestamp(text)
    except ValueError as problem:
        raise UsageError(f"{option}: {problem}") from None


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from helmd.cli.completion import service_names

    return service_names(ctx, param, incomplete)


def services_argument(command: Any) -> Any:
    """Return any number of services; none means all."""
    return click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=_names)(command)


def some_services_argument(command: Any) -> Any:
    """At least one service, or ``all``."""
    return click.argument("services", nargs=-1, required=True, metavar="SERVICE...|all", shell_complete=_names)(command)


def one_service_argument(command: Any) -> Any:
    return click.argument("service", metavar="SERVICE", shell_complete=_names)(command)
