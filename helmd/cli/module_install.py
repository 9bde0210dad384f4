"""``helmctl modules install``, and the modules of ``helmctl setup --suite``."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from helmd.cli import exits, output
from helmd.cli.arguments import ExistingPath
from helmd.cli.audit import audited
from helmd.cli.context import Context
from helmd.cli.job import current_job
from helmd.model.counted import counted
from helmd.model.errors import HelmError, UsageError
from helmd.model.suite.names import unit_of
from helmd.operations.modules.build import BuildOptions, Candidate
from helmd.operations.modules.install import Installation, WantedModule, installed_already, not_healthy, wanted_module


@click.command("install", short_help="Install a module from its git repository.")
@click.argument("source", metavar="NAME|URL")
@click.option("--ref", default="", metavar="REF", help="Install this branch, tag or commit, and follow it.")
@click.option("--name", default="", metavar="NAME", help="The name of the service; else by the URL.")
@click.option("--deploy-key", metavar="FILE|-", help="Copy this private key, and read the repository with it.",
              type=ExistingPath(dash=True))  # fmt: skip
@click.option("--allow-file", is_flag=True, help="Allow a repository on this machine, by its absolute path.")
@click.option("--trust", is_flag=True, help="Install a module whose unit, or a host that, guards nothing.")
@click.option("--dry-run", is_flag=True, help="Only fetch, check, and print what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-start", is_flag=True, help="Build and configure it, and do not start it.")
@click.option("--json", "as_json", is_flag=True, help="Print what was installed as JSON.")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the log.")
@click.pass_obj
@audited("modules install")
def modules_install_command(
    context: Context,
    source: str,
    ref: str,
    name: str,
    deploy_key: Path | None,
    allow_file: bool,
    trust: bool,
    dry_run: bool,
    yes: bool,
    no_start: bool,
    as_json: bool,
    reason: str,
) -> int:
    """Install a module of the catalogue, or one from the URL of its git repository, and start it.

    It is fetched, checked and built in a sandbox that sees its own files alone. If it does not become healthy, it is
    taken out of the suite again; what other services do is not touched. A module that is installed is left alone.
    """
    wanted = wanted_module(context.layout, context.settings, source, ref, name, allow_file)
    with _key_taken(context, wanted, deploy_key, dry_run) as key:
        return install_modules(
            context, (wanted,), trust=trust, dry_run=dry_run, yes=yes, start=not no_start, as_json=as_json, key=key
        )


@contextmanager
def _key_taken(context: Context, wanted: WantedModule, file: Path | None, dry_run: bool) -> Iterator[Path | None]:
    """With the key in FILE as that of the module; for a DRY_RUN, as a file that is used instead."""
    if file is None:
        yield None
        return
    from helmd.cli.module_key import key_text
    from helmd.operations.modules.deploy_key import add_key, trial_key

    if wanted.source.kind != "ssh":
        raise UsageError(f"{wanted.source.url} is not read over ssh, where a deploy key would count")
    if dry_run:
        with trial_key(context.layout, wanted.name, key_text(file)) as trial:
            yield trial
        return
    add_key(context.layout, wanted.name, key_text(file), replace=True)
    yield None


def _notify(sentence: str) -> None:
    output.print_message(sentence)


def build_options(trust: bool) -> BuildOptions:
    """Return how modules are built for the caller: what programs print goes into the job's log, or is left to
    the file.
    """
    from helmd.cli.caller import person

    job = current_job()
    if job is not None:
        from helmd.model.jobs.record import job_unit

        return BuildOptions(_notify, job.line, job_unit(job.request.id), trust, job.request.by.name)
    return BuildOptions(_notify, lambda text: None, trust=trust, by=person())


def _describe(wanted: WantedModule, found: Candidate) -> list[str]:
    packages = "its packages by pip" if found.service.install.requirements in found.tree.entries else "no packages"
    lines = [
        f"{wanted.name}: {wanted.source.url}, {wanted.ref or 'default branch'}, commit {found.commit[:12]}",
        f"  {counted(len(found.tree.entries), 'file')}, {max(1, found.tree.size >> 10):,} KB; {packages}",
        f"  state: {', '.join(found.service.shared_paths) or 'none'}",
    ]
    if found.service.database:
        lines.append(f"  database: {found.service.database_name}")
    if found.service.install.migrate:
        lines.append(f"  then runs: {' '.join(found.service.install.migrate)}")
    return lines


def install_modules(
    context: Context,
    modules: Sequence[WantedModule],
    *,
    trust: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    start: bool = True,
    as_json: bool = False,
    key: Path | None = None,
) -> int:
    """Install those of MODULES that are not installed, one after the other; return the exit code.

    A DRY_RUN reads with KEY, if given, in place of that of a module.
    """
    todo = []
    for wanted in modules:
        if reason := installed_already(context.layout, context.settings, wanted):
            output.print_message(f"{wanted.name} {reason}")
        else:
            todo.append(wanted)
    done: list[dict[str, str]] = []
    if not todo:
        output.print_message("Nothing to do.")
    elif dry_run:
        options = replace(build_options(trust), trial_key=key)
        installation = Installation(context.layout, context.settings, context.manager, options)
        # A job's log has messages alone.
        say = output.print_line if current_job() is None else output.print_message
        for wanted in todo:
            for line in _describe(wanted, installation.preflight(wanted)):
                say(line)
        return exits.OK
    else:
        names = ", ".join(f"{wanted.name} from {wanted.source.url}" for wanted in todo)
        agreed(f"Install {names}?", yes, "nothing was installed", "To see what would be done: --dry-run")
    code = exits.OK
    for wanted in todo:
        ended = _install_one(context, wanted, trust, start)
        code = code or ended
        if not ended:
            done.append({"name": wanted.name, "source": wanted.source.url})
    if as_json:
        output.print_json(done)
    return code


def agreed(question: str, yes: bool, refusal: str = "nothing was changed", hint: str = "") -> None:
    """Ask, unless YES has the answer, or nobody is there to be asked. Raises UsageError with REFUSAL for no."""
    if yes or current_job() is not None or not sys.stdin.isatty():
        return
    if not click.confirm(question, default=True, err=True):
        raise UsageError(refusal, hint=hint)


def _install_one(context: Context, wanted: WantedModule, trust: bool, start: bool) -> int:
    from helmd.cli.module_others import with_others
    from helmd.cli.module_update import updates_of

    updates = updates_of(context, wanted.name, trust=trust)
    outcome = with_others(context, wanted.name, lambda: updates.install(wanted.source, wanted.ref, start))
    more = "" if start else f", and not started: helmctl start {wanted.name}"
    output.print_message(f"{wanted.name} is installed (commit {outcome.commit[:12]}){more}")
    return exits.OK


def operated(verb: str, names: Sequence[str], whole: bool = False) -> int:
    """Do VERB to services with their new configuration; return the exit code."""
    from helmd.cli.control import operate

    options = {"no_block": False, "timeout": None, "quiet": False, "reason": "", "as_json": False, "dry_run": False}
    return operate(Context(), verb, names, options, whole=whole)


def install_suite(context: Context, modules: Sequence[WantedModule], trust: bool) -> tuple[list[str], int]:
    """Build those of MODULES that are not installed, and make them part of the suite, without starting them.

    The names of those, and the exit code.
    """
    names, code = [], exits.OK
    for wanted in modules:
        if reason := installed_already(context.layout, context.settings, wanted):
            output.print_message(f"{wanted.name} {reason}")
            continue
        installation = Installation(context.layout, context.settings, context.manager, build_options(trust))
        try:
            installation.build(wanted)
        except HelmError as error:
            output.print_message(f"{wanted.name}: {error.sentence}")
            for line in error.lines:
                output.print_message(f"    | {line}")
            if error.hint:
                output.print_message(f"    {error.hint}")
            code = exits.FAILED
            continue
        names.append(wanted.name)
    if names:
        installation = Installation(context.layout, context.settings, context.manager, build_options(trust))
        installation.connect(names)
    return names, code


def start_suite(context: Context, names: Sequence[str]) -> int:
    """Prepare the databases of modules that were just installed, start all, and record how each began."""
    installation = Installation(context.layout, context.settings, context.manager, build_options(False))
    fresh = Context()
    for name in names:
        installation.migrate(name, fresh.suite)
    code = operated("start", ("all",), whole=True)
    for name in names:
        version = installation.latest_built(name)
        if version is None:
            continue
        if context.manager.facts(unit_of(name)).active:
            installation.commit(name, version)
        else:
            error = not_healthy(name)
            installation.roll_back(name, version, error)
            output.print_message(error.sentence)
            code = code or exits.FAILED
    return code
