#!/usr/bin/python3 -Es
"""Builds the manual pages: generate.py OUTPUT.

The .scd files beside this one are scdoc(5) text. A line ``@NAME@`` in them stands for what is written down elsewhere:
the commands of helmctl (its click tree) and the settings (helmd.model.config), so that the pages can't fall
behind.
"""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from helmd.model.config.setting import Setting
    from helmd.model.units.hardening import Directive, Hardening

HERE = Path(__file__).resolve().parent
PLACEHOLDER = re.compile(r"^@([A-Z_]+)@$", re.MULTILINE)

_MARKUP = re.compile(r"[\\*_+`]")
_LINE_START = re.compile(r"^([#\-.|\[\];~])", re.MULTILINE)


def plain(text: str) -> str:
    """Return TEXT escaped for scdoc."""
    return _LINE_START.sub(r"\\\1", _MARKUP.sub(lambda found: "\\" + found.group(), text))


def bold(text: str) -> str:
    return f"*{plain(text)}*"


def indented(text: str) -> str:
    return "".join(f"\t{line}\n" if line else "\n" for line in text.splitlines())


def paragraphs(text: str) -> str:
    r"""Click's help text as scdoc paragraphs; one that starts with ``\b`` is shown verbatim."""
    shown = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text).partition("\f")[0].strip()):
        if block.startswith("\b\n"):
            shown.append("```\n" + block[2:] + "\n```")
        else:
            shown.append(plain(" ".join(block.split())))
    return "\n\n".join(shown)


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield every command below GROUP that is not hidden, each group before its own, in the order of their names."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            raise LookupError(f"the group lists the command {name} but has none of that name")
        if command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        yield command, inner
        if isinstance(command, click.Group):
            yield from commands(command, inner)


def options(command: click.Command, context: click.Context) -> str:
    """Return the options of COMMAND, each with its help; ``--help``, which every command has, is left to the page."""
    records = [option.get_help_record(context) for option in command.params]
    return "\n".join(
        f"{bold(record[0])}\n{indented(plain(' '.join(record[1].split())))}" for record in records if record is not None
    )


def synopsis(command: click.Command, context: click.Context) -> str:
    pieces = " ".join(command.collect_usage_pieces(context))
    return f"{bold(context.command_path)} {plain(pieces)}".rstrip()


def command_reference(root: click.Group, name: str) -> str:
    """Return every command of ROOT, which is called NAME: how it is called, what it does, its options."""
    context = click.Context(root, info_name=name)
    shown = []
    for command, inner in commands(root, context):
        title = inner.command_path.removeprefix(name + " ")
        parts = [
            f"## {plain(title)}",
            synopsis(command, inner),
            paragraphs(command.help or ""),
            options(command, inner),
        ]
        shown.append("\n\n".join(part.rstrip() for part in parts if part))
    return "\n\n".join(shown)


def kind_of(setting: "Setting") -> str:
    """Return what a value may be; for a choice, what there is to choose from, which only its reader knows."""
    if setting.kind != "choice":
        return setting.kind
    return " | ".join(inspect.getclosurevars(setting.read).nonlocals["allowed"])


def settings_reference(settings: Iterable["Setting"]) -> str:
    """Return settings, each with its kind, default and meaning."""
    return "\n".join(
        f"{bold(setting.key)} ({plain(kind_of(setting))}; default: {plain(setting.default)})\n"
        + indented(plain(setting.meaning))
        for setting in settings
    )


def aliases_reference(aliases: Mapping[str, str]) -> str:
    return "; ".join(f"{bold(alias)} is {bold(command)}" for alias, command in aliases.items()) + "."


def hardening_reference(directives: Iterable["Directive"]) -> str:
    """Return the directives of the sandbox, each with the profiles that have it and what it prevents."""
    shown = []
    for directive in directives:
        profiles = ", ".join(directive.profiles)
        value = next(iter(directive.value.splitlines()), "")
        title = f"{bold(f'{directive.name}={value}')} ({profiles})"
        text = f"It cannot {directive.prevents}."
        if directive.backstop:
            text += " The account has no right to do this without the directive either."
        shown.append(f"{title}\n{indented(plain(text))}")
    return "\n".join(shown)


def exposure_reference(exposure: Mapping["Hardening", float]) -> str:
    return ", ".join(f"{plain(profile)} {figure}" for profile, figure in exposure.items()) + "."


def fill(template: str, values: Mapping[str, Callable[[], str]]) -> str:
    """Return TEMPLATE with its placeholders filled. Raises KeyError for one that has no value."""
    return PLACEHOLDER.sub(lambda found: values[found.group(1)]().strip(), template)


def helmctl_values() -> Mapping[str, Callable[[], str]]:
    """Return what the placeholders stand for. Each is looked up only for a page that has it."""
    from helmd.cli.main import ALIASES, helmctl
    from helmd.model.config.schema import HELM_SETTINGS
    from helmd.model.config.service_schema import SERVICE_SETTINGS
    from helmd.model.logs.parsing.format_schema import FIELD_SETTINGS, FORMAT_SETTINGS, MENTION_SETTINGS
    from helmd.model.units.hardening import DIRECTIVES, EXPOSURE

    return {
        "GLOBAL_OPTIONS": lambda: options(helmctl, click.Context(helmctl, info_name="helmctl")),
        "COMMANDS": lambda: command_reference(helmctl, "helmctl"),
        "ALIASES": lambda: aliases_reference(ALIASES),
        "HARDENING": lambda: hardening_reference(DIRECTIVES),
        "EXPOSURE": lambda: exposure_reference(EXPOSURE),
        "SERVICE_SETTINGS": lambda: settings_reference(SERVICE_SETTINGS),
        "HELM_SETTINGS": lambda: settings_reference(HELM_SETTINGS),
        "FORMAT_SETTINGS": lambda: settings_reference(FORMAT_SETTINGS),
        "FIELD_SETTINGS": lambda: settings_reference(FIELD_SETTINGS),
        "MENTION_SETTINGS": lambda: settings_reference(MENTION_SETTINGS),
    }


def roff(text: str) -> bytes:
    """Return TEXT as a manual page. Raises CalledProcessError when scdoc finds a fault in it."""
    return subprocess.run(["scdoc"], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout


def main(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    values = helmctl_values()
    for source in sorted(HERE.glob("*.scd")):
        (output / source.stem).write_bytes(roff(fill(source.read_text(encoding="utf-8"), values)))


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(HERE.parents[1]))
    os.environ["COLUMNS"] = "100"
    main(Path(sys.argv[1]))
