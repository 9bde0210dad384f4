"""The manual pages' generator: every command and setting is in them, as scdoc text that means what the source says."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import click
import pytest

from helmd.cli import exits
from helmd.cli.main import ALIASES, helmctl
from helmd.model.config.schema import HELM_SETTINGS
from helmd.model.config.service_schema import SERVICE_SETTINGS
from helmd.model.config.setting import Setting
from helmd.model.logs.filter import log_filter_of
from helmd.model.logs.parsing.format_schema import FIELD_SETTINGS, FORMAT_SETTINGS, MENTION_SETTINGS
from helmd.web.routes import log_routes, routes

PAGES = Path(__file__).resolve().parents[2] / "packaging/man"


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load(PAGES / "generate.py")


def shown(page: str) -> str:
    """Return what man(1) shows of a page, unwrapped to one line."""
    roff = generate.roff(page)
    text = subprocess.run(
        ["nroff", "-man", "-Tutf8", "-rLL=5000m", "-c"], input=roff, capture_output=True, check=True
    ).stdout.decode()
    bare = subprocess.run(["col", "-b"], input=text, capture_output=True, text=True, check=True).stdout
    return " ".join(bare.split())


def whole(name: str) -> str:
    return shown(generate.fill((PAGES / name).read_text(), generate.helmctl_values()))


@click.group()
def tool() -> None:
    """A tool."""


@tool.command()
@click.argument("services", nargs=-1)
@click.option("-o", "--output", type=click.Choice(["a_b", "c"]), default="c", show_default=True, help="How *it* looks.")
@click.option("--bare", is_flag=True)
def start(**_: object) -> None:
    """Start SERVICES.

    # Not a heading, and no_emphasis_here.

    \b
    kept   as it
      is
    """


@tool.group()
def cloak() -> None:
    """A group."""


@cloak.command("setup")
def cloak_setup() -> None:
    """Set it up."""


@cloak.command(hidden=True)
def secret() -> None:
    """Not for the page."""


def test_commands_of_a_group() -> None:
    text = generate.command_reference(tool, "tool")
    page = shown('x(1) "" "X"\n\n# NAME\n\nx - y\n\n# COMMANDS\n\n' + text + "\n")
    assert "tool start [OPTIONS] [SERVICES]..." in page
    assert "# Not a heading, and no_emphasis_here." in page
    assert "-o, --output [a_b|c] How *it* looks. [default: c]" in page
    assert "--bare" in page
    assert "tool cloak setup" in page and "Set it up." in page
    assert "secret" not in page and "Not for the page" not in page
    assert "\tkept   as it" in text or "```\nkept   as it\n  is\n```" in text


def test_a_placeholder_without_a_value_is_refused() -> None:
    with pytest.raises(KeyError):
        generate.fill("@UNKNOWN@\n", {})


def test_helmctl_page_has_every_command_and_option() -> None:
    page = whole("helmctl.1.scd")
    context = click.Context(helmctl, info_name="helmctl")
    commands = list(generate.commands(helmctl, context))
    assert {command.name for command, _ in commands} >= {"status", "start", "logs", "setup", "doctor"}
    for command, inner in commands:
        assert inner.command_path in page
        for option in command.params:
            if record := option.get_help_record(inner):
                assert " ".join(f"{record[0]} {record[1]}".split()) in page
    for alias in ALIASES:
        assert f"{alias} is" in page


def test_helmctl_page_has_every_exit_code() -> None:
    section = (PAGES / "helmctl.1.scd").read_text().partition("# EXIT STATUS\n")[2].partition("\n# ")[0]
    codes = {str(code) for name, code in vars(exits).items() if name.isupper() and isinstance(code, int)}
    assert len(codes) > 8 and set(re.findall(r"^\*(\d+)\*$", section, re.MULTILINE)) == codes


@pytest.mark.parametrize(
    ("page", "settings"),
    [
        ("services.toml.5.scd", SERVICE_SETTINGS),
        ("helm.toml.5.scd", HELM_SETTINGS),
        ("formats.toml.5.scd", (*FORMAT_SETTINGS, *FIELD_SETTINGS, *MENTION_SETTINGS)),
    ],
)
def test_settings_pages_have_every_setting(page: str, settings: tuple[Setting, ...]) -> None:
    text = whole(page)
    for setting in settings:
        expected = f"{setting.key} ({generate.kind_of(setting)}; default: {setting.default}) {setting.meaning}"
        assert " ".join(expected.split()) in text


def test_choices_are_listed() -> None:
    policy = next(setting for setting in SERVICE_SETTINGS if setting.key == "restart.policy")
    assert generate.kind_of(policy) == "no | on-failure | always"


def test_pages_are_built(tmp_path: Path) -> None:
    generate.main(tmp_path)
    built = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert set(built) == {"helmctl.1", "helmd.8", "services.toml.5", "helm.toml.5", "formats.toml.5"}
    assert all(".SH NAME" in text for text in built.values())


def test_every_log_route_and_filter_is_in_the_manual() -> None:
    page = whole("helmd.8.scd")
    table = [*routes(Mock(), Mock()), *log_routes(Mock(), Mock())]
    paths = {
        route.path.replace(":[0-9]+", "") for route in table if route.path.startswith(("/api/logs", "/api/metrics"))
    }
    assert len(paths) == 10
    assert {path for path in paths if path not in page} == set()
    asked = RecordingDict()
    log_filter_of(asked)
    assert len(asked.names) > 8
    assert {name for name in asked.names if name not in page} == set()


class RecordingDict(dict[str, str]):
    """Empty parameters that note which of them are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: object = None) -> Any:
        self.names.add(name)
        return default
