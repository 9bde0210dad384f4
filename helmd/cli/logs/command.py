"""``helmctl logs``: log lines of services, and messages of systemd and Helm about them."""

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any, BinaryIO

import click

from helmd.cli import exits, output
from helmd.cli.arguments import point_in_time
from helmd.cli.context import Context, unknown_service
from helmd.cli.logs.format import LINE_FORMATS, format_named
from helmd.cli.logs.source import opened, store_has
from helmd.cli.pager import paged
from helmd.journal.query import JournalQuery, JournalUnreadableError, Wanted, boots, hidden_files, this_boot
from helmd.model.errors import UnknownServiceError, UsageError
from helmd.model.logs.entry import datetime_of
from helmd.model.logs.level import levels_named
from helmd.model.suite.names import HELM_SERVICE, SUITE_CLUSTER, service_of

DEFAULT_BACKLOG = 10
"""Lines shown initially with --follow, as in journalctl(1) and tail(1)."""
_PAGER_END_LINES = 1000
"""Lines shown with --pager-end, as in journalctl(1)."""
_AHEAD = timedelta(minutes=1)
"""How far a line may be dated in the future without a notice."""


class Count(click.ParamType):
    """A number of lines, or ``all``, which is -1."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value) == "all":
            return -1
        # Bounded, since int() rejects very long numbers.
        if not re.fullmatch(r"\d{1,12}", str(value)):
            self.fail(f"{str(value)[:40]!a} is not a number of lines or 'all'", param, ctx)
        return int(value)


_BOOT_OPTION = re.compile(r"--boot|-[aefkqrx]*b")
_BOOT_NAME = re.compile(r"[-+]?\d{1,4}|[0-9a-f]{32}")


class LogsCommand(click.Command):
    """Takes ``-b`` with and without a boot, as journalctl(1) does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given: list[str] = []
        end = args.index("--") if "--" in args else len(args)
        for word, following in zip_longest(args[:end], args[1:end], fillvalue=""):
            given.append(word)
            if _BOOT_OPTION.fullmatch(word) and not _BOOT_NAME.fullmatch(following):
                given.append("0")
        return super().parse_args(ctx, given + args[end:])


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from helmd.cli.completion import log_words

    return log_words(ctx, param, incomplete)


@click.command("logs", cls=LogsCommand, short_help="Show log lines of services.")
@click.argument("services", nargs=-1, metavar="[SERVICE]... [QUERY]...", shell_complete=_complete)
@click.option("-f", "--follow", "following", is_flag=True, help="Keep printing new lines until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=Count(),
    metavar="N|all",
    help=f"Only the last N lines. [default: {DEFAULT_BACKLOG} with -f, else all]",
)
@click.option(
    "-S", "--since", metavar="TIME", help='Lines since then: "10 min ago", "yesterday", "09:30", "-1h", ISO 8601.'
)
@click.option("-U", "--until", metavar="TIME", help="Lines until then.")
@click.option("-u", "--unit", "units", multiple=True, metavar="SERVICE", help="Same as SERVICE; may be a pattern.")
@click.option(
    "-b",
    "--boot",
    "boot",
    metavar="[N|ID]",
    help="Only lines of the current boot, of the one N boots before (-b -1), or of the boot ID.",
)
@click.option("--list-boots", is_flag=True, help="List the boots of which the journal has lines.")
@click.option("-e", "--pager-end", is_flag=True, help="The last 1000 lines, the pager at the end.")
@click.option("-k", "--dmesg", is_flag=True, hidden=True)
@click.option("-a", "--all", "_all", is_flag=True, hidden=True, expose_value=False)
@click.option("-x", "--catalog", is_flag=True, hidden=True, expose_value=False)
@click.option("-q", "--quiet", is_flag=True, help="Print no notices.")
@click.option("--utc", is_flag=True, help="Times in UTC.")
@click.option(
    "-p",
    "--level",
    "--priority",
    "level",
    metavar="LEVEL",
    help="This level and above (debug, info, warning, error, critical), or a range FROM..TO.",
)
@click.option(
    "-g",
    "--grep",
    "pattern",
    metavar="REGEX",
    help="Only messages that match; case is ignored if REGEX is all lower-case.",
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
    help="Output format.",
)
@click.option("--json", "as_json", is_flag=True, help="Same as -o json: one object per line.")
@click.option("--stdout", "only_stdout", is_flag=True, help="Only lines printed to stdout.")
@click.option("--stderr", "only_stderr", is_flag=True, help="Only lines printed to stderr.")
@click.option("--journal", "from_journal", is_flag=True, help="Read the journal instead of the log store.")
@click.option("--no-pager", is_flag=True, help="Do not use a pager.")
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
    units: tuple[str, ...],
    boot: str | None,
    list_boots: bool,
    pager_end: bool,
    dmesg: bool,
    quiet: bool,
    utc: bool,
    **filters: Any,
) -> int:
    """Show log lines that services printed or posted, and messages of systemd and Helm about them.

    QUERY is in the query language, for example 'level>=warning -"health check" context.status>=500 /time.?out/';
    helmctl(1) has it all. A word that can't be the name of a service is a part of it.

    SERVICE may also be "postgres" (the suite's database) or "helm" (Helm's own units); the default is all. Lines are
    read from the log store, with the level found in their text (else INFO, for both stdout and stderr). If helmd or its
    database is unavailable, they are read from the journal, with a notice.
    """
    if dmesg:
        raise UsageError("messages of the kernel are the machine's, not the suite's", hint="See: journalctl -k")
    if list_boots:
        return _list_boots(context, utc)
    if following and reverse:
        raise UsageError("--follow and --reverse can't be combined")
    if following and until:
        raise UsageError("--follow and --until can't be combined")
    names, query = _named_and_asked(services)
    wanted = Wanted(
        since=point_in_time("--since", since),
        until=point_in_time("--until", until),
        services=_services_named((*names, *_without_patterns(context, units))),
        boot=_boot_id(context, boot),
        query=query,
        **_filters(**filters),
    )
    if lines is None and pager_end:
        lines = _PAGER_END_LINES
    notify = _discard if quiet else _notify
    if lines is None and following and wanted.since is None:
        lines = DEFAULT_BACKLOG
    terminal = sys.stdout.isatty()
    write = format_named("json" if as_json else form, output.coloured(), terminal, utc)
    _check_services(context, wanted.services, from_journal)
    count = None if lines is None or lines < 0 else lines
    with opened(context.layout, wanted, count, reverse, following, from_journal, notify) as (source, backlog):
        with _destination(terminal and not following and not no_pager, pager_end) as sink:
            any_found, ahead = False, False
            future = datetime.now(UTC) + _AHEAD
            for line in backlog:
                sink.write(write(line))
                any_found = True
                ahead = ahead or line.row.timestamp > future
            if following:
                for line in source.follow(sink.flush, sys.stdout.fileno()):
                    sink.write(write(line))
            sink.flush()
    if ahead:
        notify("some of these lines are dated in the future: the clock was ahead; to leave them out: --until now")
    if any_found or following:
        return exits.OK
    if not quiet:
        _report_no_lines(context, query, from_journal)
    # As grep(1) and journalctl(1).
    return exits.OK if wanted.pattern is None and not wanted.query else exits.FAILED


def _list_boots(context: Context, utc: bool) -> int:
    found = boots(context.layout.uid)
    zone = UTC if utc else None
    for number, boot in enumerate(found):
        times = (datetime_of(when).astimezone(zone).strftime("%a %Y-%m-%d %H:%M:%S %Z") for when in boot[1:])
        output.print_line(f"{number - len(found) + 1:>3} {boot.id} " + "  ".join(times))
    return exits.OK


def _boot_id(context: Context, given: str | None) -> str | None:
    """Return the id of the boot that -b names: an id, an offset from the current boot (0, -1), or from the first (1,
    2).
    """
    if given is None or re.fullmatch(r"[0-9a-f]{32}", given):
        return given
    if not _BOOT_NAME.fullmatch(given):
        raise UsageError(f"--boot: {given[:40]!a} is not a boot", hint="List them: helmctl logs --list-boots")
    offset = int(given)
    if offset == 0:
        return this_boot()
    known = [boot.id for boot in boots(context.layout.uid)]
    index = offset - 1 if offset > 0 else len(known) - 1 + offset
    if not 0 <= index < len(known):
        raise UsageError(f"--boot: the journal has no boot {given}", hint="List them: helmctl logs --list-boots")
    return known[index]


def follow_services(context: Context, names: Sequence[str]) -> int:
    """Run ``helmctl logs --follow`` for the services NAMES; return the exit status."""
    status: int = logs_command.main(["--follow", *names], standalone_mode=False, obj=context, prog_name="helmctl logs")
    return status


def _destination(with_pager: bool, at_end: bool) -> AbstractContextManager[BinaryIO]:
    if not with_pager:
        # A closed pipe and ^C end the program at once and silently, as they do journalctl.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return paged(with_pager, at_end)


def _filters(
    level: str | None, pattern: str | None, trace: str | None, only_stdout: bool, only_stderr: bool
) -> dict[str, Any]:
    streams = {name for name, given in (("stdout", only_stdout), ("stderr", only_stderr)) if given}
    try:
        levels = levels_named(level) if level else None
    except ValueError as problem:
        raise UsageError(f"--level: {problem}") from None
    try:
        compiled = re.compile(pattern, re.IGNORECASE if pattern == pattern.lower() else 0) if pattern else None
    except (re.error, OverflowError, RecursionError) as problem:
        raise UsageError(f"--grep: invalid regular expression ({problem})") from None
    return {
        "levels": levels,
        "streams": frozenset(streams) or None,
        "pattern": compiled,
        "trace": trace,
    }


_NAME = re.compile(r"[A-Za-z0-9_.@\\-]+", re.ASCII)


def _named_and_asked(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the services among WORDS, and the query that the others are. Raises UsageError."""
    names = [word for word in words if _NAME.fullmatch(word) and not word.startswith("-")]
    query = " ".join(word for word in words if word not in names)
    if query:
        # Imported here: most commands are given no query.
        from helmd.model.logs.query_language.parse import parsed_query

        parsed_query(query)
    return names, query


def _without_patterns(context: Context, units: Sequence[str]) -> Iterator[str]:
    """Yield UNITS, and for a pattern (glob(7)) among them the services that match. Raises UnknownServiceError."""
    for unit in units:
        if any(character in unit for character in "*?["):
            yield from context.chosen((unit,), context.suite_or_installed, unregistered=True)
        else:
            yield unit


def _services_named(names: Sequence[str]) -> frozenset[str] | None:
    """Return the services called NAMES, which may be unit names, or None for all."""
    if not names or "all" in names:
        return None
    return frozenset(service_of(f"{name.removesuffix('.service')}.service") or name for name in names)


def _check_services(context: Context, names: frozenset[str] | None, from_journal: bool) -> None:
    """Raise UnknownServiceError for a name that is not in the journal, the configuration or the log store."""
    asked = (names or frozenset()) - {HELM_SERVICE, SUITE_CLUSTER}
    for name in sorted(asked - _in_journal(context) if asked else ()):
        if name in context.suite_or_installed:
            continue
        if from_journal or not store_has(context.layout, name):
            raise unknown_service(name, (*context.suite_or_installed.names, HELM_SERVICE))


def _in_journal(context: Context) -> frozenset[str]:
    try:
        with JournalQuery(context.layout.uid, Wanted()) as query:
            return query.services()
    except JournalUnreadableError:
        return frozenset()


def _notify(sentence: str) -> None:
    output.print_message(sentence)


def _discard(sentence: str) -> None:
    """For --quiet."""


def _report_no_lines(context: Context, query: str, from_journal: bool) -> None:
    output.print_message("no lines")
    if query:
        _report_unknown_services(context, query, from_journal)
    if not context.layout.config.is_dir():
        output.print_message("this account has no suite; see: helmctl status")
    if (hidden := hidden_files()) and os.getuid() != 0:
        files = "a journal file" if len(hidden) == 1 else f"{len(hidden)} journal files"
        output.print_message(f"this account can't read {files} of this machine; see helmctl doctor")


def _report_unknown_services(context: Context, query: str, from_journal: bool) -> None:
    # Imported here, as in `_named_and_asked`.
    from helmd.model.logs.query_language.nodes import Among, terms_in
    from helmd.model.logs.query_language.parse import parsed_query

    for leaf in terms_in(parsed_query(query)):
        if isinstance(leaf, Among) and leaf.column == "service_name":
            try:
                _check_services(context, leaf.values, from_journal)
            except UnknownServiceError as error:
                output.print_message(error.sentence)
