"""``helmctl logs``: what the services printed and posted, and what systemd and Helm said about them."""

import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

import click

from helmd.cli import exits, output
from helmd.cli.arguments import services_argument
from helmd.cli.context import Context
from helmd.cli.logs.format import LINE_FORMATS, format_named
from helmd.cli.logs.source import opened, store_has
from helmd.cli.pager import paged
from helmd.journal.query import JournalQuery, JournalUnreadableError, Wanted, hidden_files, this_boot
from helmd.model.errors import UnknownServiceError, UsageError
from helmd.model.logs.level import levels_named
from helmd.model.printable import printable
from helmd.model.suite.names import HELM_SERVICE, SUITE_CLUSTER, service_of

FOLLOWED = 10
"""Lines shown before those that come, as journalctl and tail(1) have it."""


class Count(click.ParamType):
    """A number of lines, or ``all``."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value) == "all":
            return -1
        # More digits than any journal has lines.
        if not re.fullmatch(r"\d{1,12}", str(value)):
            self.fail(f"{str(value)[:40]!a} is neither a number of lines nor 'all'", param, ctx)
        return int(value)


@click.command("logs", short_help="Show what services printed.")
@services_argument
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with new lines as they come, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=Count(),
    metavar="N|all",
    help=f"Only the last N lines. [default: {FOLLOWED} with -f, else all]",
)
@click.option(
    "-S", "--since", metavar="TIME", help='From then on: "10 min ago", "yesterday", "09:30", "-1h", ISO 8601.'
)
@click.option("-U", "--until", metavar="TIME", help="Up to then.")
@click.option("-b", "--boot", is_flag=True, help="Only since the machine was booted.")
@click.option(
    "-p",
    "--level",
    "--priority",
    "level",
    metavar="LEVEL",
    help="This level and graver ones (debug, info, warning, error, critical), or a range FROM..TO.",
)
@click.option(
    "-g",
    "--grep",
    "pattern",
    metavar="REGEX",
    help="Only messages that match; in any case when REGEX is all lower-case.",
)
@click.option("--trace", metavar="ID", help="Only lines of this trace.")
@click.option("-r", "--reverse", is_flag=True, help="Newest first.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(LINE_FORMATS),
    default="short",
    show_default=True,
    help="How to print it.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as -o json: one object a line.")
@click.option("--stdout", "only_stdout", is_flag=True, help="Only what was printed to stdout.")
@click.option("--stderr", "only_stderr", is_flag=True, help="Only what was printed to stderr.")
@click.option(
    "--journal", "from_journal", is_flag=True, help="Ask the journal, not the log store, even where helmd is there."
)
@click.option("--no-pager", is_flag=True, help="Straight to the terminal.")
@click.pass_obj
def logs_command(
    context: Context,
    services: tuple[str, ...],
    following: bool,
    lines: int | None,
    since: str | None,
    until: str | None,
    form: str,
    as_json: bool,
    reverse: bool,
    from_journal: bool,
    no_pager: bool,
    **filters: Any,
) -> int:
    """Show what services printed and posted, and what systemd and Helm said about them.

    SERVICE may also be "postgres" (the suite's database) and "helm" (Helm's own units); without any, it is all of them.
    Lines come from the log store, with the level that their text tells (INFO where it tells none, whether stdout or
    stderr). When helmd or its database is away they come from the journal, and helmctl says so.
    """
    if following and reverse:
        raise UsageError("--follow and --reverse don't go together")
    if following and until:
        raise UsageError("--follow and --until don't go together")
    wanted = Wanted(
        since=_moment("--since", since),
        until=_moment("--until", until),
        services=_plain_names(services),
        **_filters(**filters),
    )
    if lines is None and following and wanted.since is None:
        lines = FOLLOWED
    terminal = sys.stdout.isatty()
    write = format_named("json" if as_json else form, output.coloured(), terminal)
    _refuse_unknown(context, wanted.services, from_journal)
    count = None if lines is None or lines < 0 else lines
    with opened(context.layout, wanted, count, reverse, following, from_journal, _notify) as (source, backlog):
        with _destination(terminal and not following and not no_pager) as sink:
            any_found = False
            for line in backlog:
                sink.write(write(line))
                any_found = True
            if following:
                for line in source.follow(sink.flush, sys.stdout.fileno()):
                    sink.write(write(line))
            sink.flush()
    if not any_found and not following:
        _say_nothing_found()
    return exits.OK


def follow_services(context: Context, names: Sequence[str]) -> int:
    """Shows what the services NAMES print from a moment ago on, as ``helmctl logs -f`` does."""
    ended: int = logs_command.main(["--follow", *names], standalone_mode=False, obj=context, prog_name="helmctl logs")
    return ended


def _destination(with_pager: bool) -> AbstractContextManager[BinaryIO]:
    if not with_pager:
        # A reader that has seen enough, and ^C, end this program as they end journalctl: at once, without a word.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return paged(with_pager)


def _moment(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    from helmd.systemd.timestamp import parse_timestamp

    try:
        return parse_timestamp(text)
    except ValueError as problem:
        raise UsageError(f"{option}: {problem}") from None


def _filters(
    level: str | None, pattern: str | None, trace: str | None, boot: bool, only_stdout: bool, only_stderr: bool
) -> dict[str, Any]:
    streams = {name for name, given in (("stdout", only_stdout), ("stderr", only_stderr)) if given}
    try:
        levels = levels_named(level) if level else None
    except ValueError as problem:
        raise UsageError(f"--level: {problem}") from None
    try:
        compiled = re.compile(pattern, re.IGNORECASE if pattern == pattern.lower() else 0) if pattern else None
    except (re.error, OverflowError, RecursionError) as problem:
        raise UsageError(f"--grep: this is no regular expression ({problem})") from None
    return {
        "levels": levels,
        "streams": frozenset(streams) or None,
        "pattern": compiled,
        "trace": trace,
        "boot": this_boot() if boot else None,
    }


def _plain_names(names: Sequence[str]) -> frozenset[str] | None:
    """Services by the names given, which may be those of their units; None for all."""
    if not names or "all" in names:
        return None
    return frozenset(service_of(f"{name.removesuffix('.service')}.service") or name for name in names)


def _refuse_unknown(context: Context, names: frozenset[str] | None, from_journal: bool) -> None:
    """Raises UnknownServiceError for a name that neither journal nor configuration nor log store has."""
    asked = (names or frozenset()) - {HELM_SERVICE, SUITE_CLUSTER}
    for name in sorted(asked - _in_journal(context) if asked else ()):
        if name in context.suite_or_installed:
            continue
        if from_journal or not store_has(context.layout, name):
            raise UnknownServiceError(
                f"there is no service '{printable(name, 60)}', nor any line of it", hint="See them: helmctl status"
            )


def _in_journal(context: Context) -> frozenset[str]:
    try:
        with JournalQuery(context.layout.uid, Wanted()) as query:
            return query.services()
    except JournalUnreadableError:
        return frozenset()


def _notify(sentence: str) -> None:
    output.print_message(sentence)


def _say_nothing_found() -> None:
    output.print_message("no lines")
    if (hidden := hidden_files()) and os.getuid() != 0:
        files = "a journal file" if len(hidden) == 1 else f"{len(hidden)} journal files"
        output.print_message(f"{files} of this machine can't be read by this account; see: helmctl doctor")
