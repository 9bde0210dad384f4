"""Arguments and options that several commands share."""

import re
from typing import Any

import click


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
