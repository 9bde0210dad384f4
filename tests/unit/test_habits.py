"""What users of journalctl(1), systemctl(1), docker and git type, and what they expect of it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import click
import pytest
from click.testing import CliRunner

from helmd import __version__
from helmd.cli import control, output
from helmd.cli.context import Context, unknown_service
from helmd.cli.logs.command import _without_patterns, logs_command
from helmd.cli.logs.format import OutputLine, format_named
from helmd.cli.main import helmctl
from helmd.cli.metrics import metrics_command
from helmd.cli.units import (
    SignalName,
    _readable,
    cat_command,
    disable_command,
    edit_command,
    kill_command,
    show_command,
)
from helmd.journal.lines import PrintedLine
from helmd.model.config.settings import Settings
from helmd.model.errors import UnknownServiceError, UsageError
from helmd.model.logs.entry import LogRow
from helmd.model.suite.service import Registry, Service
from helmd.operations.configuration.effective import Effective
from helmd.operations.diagnostics.why import LINES, of_this_run
from helmd.systemd.bus import Manager
from helmd.systemd.timestamp import parse_timestamp
from helmd.systemd.usage import read_group

ROW = LogRow(
    datetime(2026, 3, 1, 12, 0, 5, 250, UTC), "portal", "INFO", "hello", None, None, None, "host", 7, "journal",
    "hivematrix-portal.service", "stdout", None,
)  # fmt: skip
SUITE = Registry({name: Service(name=name, type="command") for name in ("portal", "post-office", "archive")})


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("short", b"Mar 01 12:00:05 portal[7]: hello\n"),
        ("short-iso", b"2026-03-01T12:00:05+0000 portal[7]: hello\n"),
        ("short-precise", b"Mar 01 12:00:05.000250 portal[7]: hello\n"),
    ],
)
def test_times_of_lines(form: str, shown: bytes) -> None:
    assert format_named(form, False, False, utc=True)(OutputLine(ROW)) == shown


def test_json_on_several_lines() -> None:
    assert format_named("json-pretty", False, False)(OutputLine(ROW)).count(b"\n") > 5


@pytest.mark.parametrize(
    ("words", "boot"),
    [(["-b"], "0"), (["-b", "-1"], "-1"), (["-b", "portal"], "0"), (["--boot=-2"], "-2"), (["-rb"], "0"), ([], None)],
)
def test_the_boot_may_be_left_out(words: list[str], boot: str | None) -> None:
    with logs_command.make_context("logs", [*words, "-u", "portal", "-a", "-x", "-q"]) as ctx:
        assert ctx.params["boot"] == boot
        assert ctx.params["units"] == ("portal",)


def test_words_after_the_end_of_options_stay() -> None:
    """Terms of a query that begin with a hyphen."""
    with logs_command.make_context("logs", ["-q", "--", "-b", "-health"]) as ctx:
        assert (ctx.params["services"], ctx.params["boot"]) == (("-b", "-health"), None)


def test_units_of_logs_may_be_patterns() -> None:
    units = ("hivematrix-po*", "nosuch", "hivematrix-archive.service")
    named = ["portal", "post-office", "nosuch", "hivematrix-archive.service"]
    assert list(_without_patterns(SuiteContext(), units)) == named
    with pytest.raises(UnknownServiceError):
        list(_without_patterns(SuiteContext(), ["x*"]))


def test_no_argument_is_needed() -> None:
    with logs_command.make_context("logs", []) as ctx:
        assert ctx.params["boot"] is None and ctx.params["services"] == ()


def test_kernel_messages_are_not_ours() -> None:
    with pytest.raises(Exception, match="kernel"):
        logs_command.main(["-k"], standalone_mode=False, obj=Context())


def test_a_span_is_time_that_has_passed() -> None:
    """docker logs --since."""
    for span, seconds in (("10m", 600), ("1h30m", 5400), ("45s", 45), ("2d", 172800)):
        passed = datetime.now(UTC).timestamp() - parse_timestamp(span) / 1e6
        assert passed == pytest.approx(seconds, abs=30)


def test_patterns_and_suggestions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".config/hivematrix").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    context = Context()
    assert context.chosen(["po*"], SUITE) == ("portal", "post-office")
    assert context.chosen(["hivematrix-archive.service", "[p]ortal"], SUITE) == ("archive", "portal")
    with pytest.raises(Exception, match="did you mean 'portal'"):
        context.chosen(["protal"], SUITE)
    assert "did you mean" not in unknown_service("xyz", SUITE.names).sentence


class SuiteContext(Context):
    """A context with a suite, one of whose services is external, and a manager that has loaded no unit."""

    def __init__(self) -> None:
        elsewhere = Service(name="elsewhere", type="external", url="http://localhost:1")
        registry = Registry({**SUITE.services, "elsewhere": elsewhere})
        self.asked = Mock(spec=Manager, disable=Mock(return_value=[]), units_like=Mock(return_value=[]))
        layout = Mock(config=Path("/nonexistent"))
        effective = Effective(Settings(), registry)
        self.__dict__.update(manager=self.asked, suite_or_installed=registry, effective=effective, layout=layout)


@pytest.mark.parametrize("command", [show_command, cat_command, edit_command, metrics_command])
@pytest.mark.parametrize("service", ["all", "po*"])
def test_commands_about_one_service_refuse_several(command: click.Command, service: str) -> None:
    result = CliRunner().invoke(command, [service], obj=SuiteContext())
    assert isinstance(result.exception, UsageError) and "services: give one" in result.exception.sentence


def test_external_services_are_left_out_where_units_are_needed() -> None:
    context = SuiteContext()
    assert CliRunner().invoke(kill_command, ["all"], obj=context).exception is None
    units = [f"hivematrix-{name}.service" for name in SUITE.names]
    assert [call.args[0] for call in context.asked.kill.call_args_list] == units
    assert CliRunner().invoke(disable_command, ["all"], obj=context).exception is None
    context.asked.disable.assert_called_once_with(units)
    for command in (kill_command, disable_command):
        result = CliRunner().invoke(command, ["elsewhere"], obj=context)
        assert isinstance(result.exception, UnknownServiceError)
        context.__dict__["suite_or_installed"] = Registry({})
        assert CliRunner().invoke(command, ["all"], obj=context).exception is None
        context = SuiteContext()


@pytest.mark.parametrize("words", [["version"], ["-V"], ["--version"]])
def test_the_version(words: list[str]) -> None:
    assert __version__ in CliRunner().invoke(helmctl, words).output


def test_help_is_a_command_too() -> None:
    asked = CliRunner().invoke(helmctl, ["help", "postgres", "upgrade"]).output
    assert asked.startswith("Usage:") and "postgres upgrade" in asked
    assert "Usage:" in CliRunner().invoke(helmctl, ["help"]).output
    assert CliRunner().invoke(helmctl, ["help", "strat"]).exit_code == 2


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["?"], ""),
        (["\N{EM DASH}version"], "version"),
        (["--", "-b"], ""),
        (["strat"], "start"),
        (["modules", "\N{EM DASH}help"], ""),
        (["modules", "instal"], "install"),
        (["modules", "key", "ad"], "add"),
        (["help", "_start"], "start"),
    ],
)
def test_no_word_is_an_unknown_command_that_is_ignored(words: list[str], meant: str) -> None:
    done = CliRunner().invoke(helmctl, words)
    assert done.exit_code == 2 and f"No such command '{words[-1]}'." in done.output
    assert ("Did you mean" in done.output, f"'{meant}'?" in done.output) == (bool(meant), bool(meant))


@pytest.mark.parametrize("name", ["TERM", "sigterm", "15"])
def test_names_of_signals(name: str) -> None:
    assert SignalName().convert(name, None, None) == 15


def test_readable_properties() -> None:
    assert re.match(
        r"\w{3} 2026-03-0\d \d\d:\d\d:05 ", _readable("ActiveEnterTimestamp", int(ROW.timestamp.timestamp() * 1e6))
    )
    assert _readable("TimeoutStartUSec", 90_000_000) == "1min 30s"
    assert _readable("RuntimeMaxUSec", (1 << 64) - 1) == "infinity"
    assert _readable("NRestarts", 3) == "3"


def test_a_row_of_a_narrow_screen_is_not_wrapped() -> None:
    for parts in output.table(("SERVICE", "STATE"), [("a" * 40, "healthy")], state=1):
        assert len(output.render_line(output.truncate(parts, 20), False)) <= 20


def test_lines_begin_at_the_first_error_of_the_run() -> None:
    lines = [PrintedLine(number, f"line {number}") for number in range(60)]
    assert of_this_run(lines) == lines[-LINES:]
    lines[20] = PrintedLine(20, "OSError: [Errno 98] Address already in use")
    assert of_this_run(lines) == [*lines[20 : 20 + LINES // 2], *lines[-LINES // 2 :]]
    lines[57] = PrintedLine(57, "ERROR again")
    assert of_this_run(lines)[0] == lines[20]
    assert of_this_run([]) == []


def _commands(group: click.Group, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Yield paths of commands, each with what is said of it in a list that is 80 columns wide."""
    context = click.Context(group, parent, group.name)
    names = group.list_commands(context)
    width = 78 - 4 - max(map(len, names))
    for name in names:
        command = group.get_command(context, name)
        assert command is not None
        yield f"{context.command_path} {name}", command.get_short_help_str(width)
        if isinstance(command, click.Group):
            yield from _commands(command, context)


def test_lists_of_commands_say_what_each_does_in_whole_sentences() -> None:
    cut = {path: text for path, text in _commands(helmctl) if text.endswith("...")}
    assert cut == {}


def test_a_long_last_line_is_visibly_cut() -> None:
    assert control.shorten_line("it listens") == "it listens"
    shown = control.shorten_line("word " * 60)
    assert len(shown) <= control.LAST_SHOWN and shown.endswith("word…")


def test_shared_memory_counts_by_share(tmp_path: Path) -> None:
    """Where the host counts no memory of control groups. Two interpreters share the pages of their libraries."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    try:
        other.stdout.readline()
        (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n{other.pid}\n")
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in (os.getpid(), other.pid)]
        resident = sum(int(size) * 1024 for text in statuses for size in re.findall(r"VmRSS:\s+(\d+)", text))
        counted = read_group(tmp_path).memory
    finally:
        other.communicate(b"\n", timeout=60)
    assert counted is not None and 0 < counted < resident
