"""``helmctl config``: the settings of a service as they are written, and changes of them in services.toml."""

import tomllib
from typing import Any

import click

from helmd.cli import exits, output
from helmd.cli.arguments import one_service_argument
from helmd.cli.context import Context
from helmd.model.errors import UsageError

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command("config", short_help="Show or change settings of a service.")
@one_service_argument
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--unset", "unset", metavar="KEY", multiple=True, help="Take this setting out; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def config_command(
    context: Context,
    service: str,
    changes: tuple[str, ...],
    unset: tuple[str, ...],
    dry_run: bool,
    reason: str,
    as_json: bool,
) -> int:
    """Show the settings of a service that are set in a file, each with its place, or change them in services.toml.

    KEY is as in services.toml(5): port, health.timeout, environment.LANG. VALUE is a value of TOML, or text: 5001, 5s,
    true, ["./serve", "--quiet"]. Comments and the order of the file stay. The whole registry is checked first; "helmctl
    apply" takes the change over.
    """
    from helmd.model.api.json_codec import to_json
    from helmd.operations.configuration.service_config import change_service_config, service_config

    if not changes and not unset:
        reply = service_config(context.layout, service).reply
        if as_json:
            output.print_json(to_json(reply))
            return exits.OK
        for setting in reply.settings:
            place = f"{setting.file}:{setting.line}" if setting.line else setting.file
            output.print_line(f"{setting.key} = {_shown(setting.value)}  # {place}")
        for fault in reply.faults:
            output.print_message(f"warning: {fault}")
        return exits.OK

    from helmd.cli.audit import recorded
    from helmd.model.api.service_config import ServiceConfigBody

    wanted = ServiceConfigBody(dict(map(_change, changes)), unset, apply=False, reason=reason)
    what = f"{service}: {'; '.join((*(f'set {key}' for key in wanted.set), *(f'unset {key}' for key in unset)))}"
    if dry_run:
        made, _ = change_service_config(context.layout, service, wanted, None, dry_run=True)
    else:
        with recorded(context, "config", reason, what):
            made, _ = change_service_config(context.layout, service, wanted, None)
    if as_json:
        output.print_json(to_json(made))
        return exits.OK
    for text in (made.diff, *(each.diff for each in made.units if each.applied)):
        for line in text.splitlines():
            colour = _COLOURS.get(line[:1])
            output.print_line(output.Painted(line, colour) if colour else line)
    if not made.changed:
        output.print_message("Nothing to change.")
    elif not dry_run:
        then = f", then: {made.next}" if made.next else ""
        output.print_message(f"To take effect: helmctl apply {service}{then}")
    return exits.OK


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"{text!a}: must be KEY=VALUE", hint="To take a setting out: --unset KEY")
    try:
        read: Any = tomllib.loads(f"value = {value}")["value"] if "\n" not in value else value
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        read = value
    return key.strip(), read


def _shown(value: object) -> str:
    from helmd.model.config.toml_text import toml_text

    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_shown(item)}" for name, item in value.items()) + "}"
    try:
        return toml_text({"value": value}).partition(" = ")[2].rstrip("\n")
    except ValueError:
        return str(value)
