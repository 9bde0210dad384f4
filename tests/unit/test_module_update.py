"""Updates, rollbacks and removals of a module from a git repository; systemd is a fake, and git runs unconfined."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from helmd.cli import exits
from helmd.cli.context import Context
from helmd.cli.module_update import modules_recover_command
from helmd.files.lock import locked
from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError, LockedError, ModuleError, StartFailedError, UsageError
from helmd.model.layout import Layout, layout
from helmd.model.modules.check import behind_of
from helmd.model.modules.gate import GatePolicy
from helmd.model.modules.record import ModuleRecord
from helmd.model.modules.source import git_source_of
from helmd.model.units.unit_state import UnitFacts
from helmd.modules import environment, git
from helmd.modules.intent_log import IntentLog
from helmd.modules.records import read_check, read_record, write_record
from helmd.modules.sandbox import Ran
from helmd.operations.configuration.apply import Change
from helmd.operations.configuration.databases import put_uris
from helmd.operations.configuration.effective import load_effective
from helmd.operations.diagnostics import suite as doctor_suite
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.lifecycle.steps import Step
from helmd.operations.modules import data, hold, made, migrate, remove, surroundings, update
from helmd.operations.modules.build import BuildOptions, ModuleBuild
from helmd.operations.modules.data import RESERVE, ModuleData
from helmd.operations.modules.engine import RolledBackError
from helmd.operations.modules.guard import guard_properties
from helmd.operations.modules.hold import hold_module
from helmd.operations.modules.planned import entry_file, place_entry
from helmd.operations.modules.recover import interrupted, recover_at_boot, recover_module
from helmd.operations.modules.shown import shown_plan
from helmd.operations.modules.surroundings import ModuleSteps
from helmd.operations.modules.update import ModuleUpdates
from tests.waiting import WITHIN

UNIT = "hivematrix-desk.service"
TOP = Path(__file__).resolve().parents[2]
DECLARED = """\
[service]
port = 5099
shared_paths = ["instance", ".flaskenv"]

[service.install]
migrate = ["/bin/sh", "migrate.sh"]
"""


class Machine:
    """A user manager with one unit."""

    def __init__(self) -> None:
        self.running = True
        self.starts = 0
        self.guards: list[str] = []

    def facts(self, unit: str) -> UnitFacts:
        return UnitFacts(unit, "loaded", "active" if self.running else "inactive")

    def start_transient(self, unit: str, properties: object) -> None:
        self.guards.append(unit)

    def units_like(self, *patterns: str) -> list[str]:
        return []

    def reset_failed(self, unit: str) -> None:
        pass


def run_in(sandbox: Any, words: Sequence[str], line: Callable[[str], None], **how: Any) -> Ran:
    """Run a command of the sandbox here."""
    keep = how.get("keep", 0)
    scratch = sandbox.layout.home / "scratch"
    scratch.mkdir(exist_ok=True)
    environ = {**os.environ, **sandbox.environment, "TMPDIR": str(scratch), "HOME": str(scratch)}
    done = subprocess.run(
        list(words), input=how.get("given", b""), capture_output=True, cwd=sandbox.directory, env=environ, check=False
    )
    tail = (done.stdout + done.stderr).decode().splitlines()
    return Ran(
        "success" if done.returncode == 0 else "exit-code", done.returncode, tuple(tail), done.stdout if keep else b""
    )


class Desk:
    """The module ``desk``: its repository, and what is installed of it."""

    def __init__(self, place: Layout, repository: Path, machine: Machine) -> None:
        self.layout, self.repository, self.machine = place, repository, machine
        self.places = place.module("desk")
        self.said: list[str] = []
        self.steps: list[str] = []
        self.gate: Callable[[GatePolicy], None] = lambda policy: None
        self.start: Callable[[str], None] = lambda version: None

    @property
    def settings(self) -> Settings:
        return Settings(module_files=True)

    @property
    def options(self) -> BuildOptions:
        return BuildOptions(self.said.append, lambda text: None, trust=True, by="hive")

    @property
    def record(self) -> ModuleRecord:
        found = read_record(self.places)
        assert found is not None
        return found

    @property
    def serves(self) -> str:
        """The commit that the suite's files name."""
        text = entry_file(self.layout, "desk").read_text()
        return next(each.commit for each in self.record.versions if each.id in text)

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            (self.repository / name).write_text(text)
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        self.git("add", "--all")
        self.git(*author, "commit", "--quiet", "--allow-empty", "--message=change it")
        return self.git("rev-parse", "HEAD")

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.repository, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def updates(self) -> ModuleUpdates:
        def step(step: Step) -> None:
            self.steps.append(step.sentence)

        return ModuleUpdates(self.layout, self.settings, self.machine, "desk", self.options, step, 3.0)  # type: ignore[arg-type]

    def recovered(self) -> bool:
        """Recover it, as the next command does."""
        return recover_module(self.layout, self.settings, self.machine, "desk", self.options, lambda step: None)  # type: ignore[arg-type]

    def state(self) -> dict[str, str]:
        """Return the shared files and the configuration, with their contents."""
        shared = {
            str(each.relative_to(self.places.shared)): each.read_text()
            for each in self.places.shared.rglob("*")
            if each.is_file()
        }
        return shared | {"entry": entry_file(self.layout, "desk").read_text()}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    place = layout({}, tmp_path, os.getuid(), TOP)
    place.config.mkdir(parents=True)
    place.state.mkdir(parents=True)
    (place.state / "host.json").write_text('{"systemd": 252, "user_namespaces": true}')
    repository = tmp_path / "desk.git"
    repository.mkdir()
    machine = Machine()
    found = Desk(place, repository, machine)
    monkeypatch.setattr(environment, "_SECONDS", 10 * WITHIN)
    for module in (git, environment, migrate):
        monkeypatch.setattr(module, "run_in", run_in)
    monkeypatch.setattr(migrate, "rendered", lambda *_, **__: {"hivematrix-desk.service": ""})

    def halted(self: ModuleSteps) -> None:
        machine.running = False

    def started(self: ModuleSteps, registry: Any, with_dependencies: bool = False) -> None:
        found.start(registry["desk"].path.rpartition("/")[2])
        machine.running = True
        machine.starts += 1

    def watched(*words: Any) -> None:
        found.gate(words[4])

    monkeypatch.setattr(ModuleSteps, "_halted", halted)
    monkeypatch.setattr(ModuleSteps, "_started", started)
    monkeypatch.setattr(ModuleSteps, "_applied", lambda self, version: None)
    monkeypatch.setattr(surroundings, "observe_before", lambda *_: ({}, 0))
    monkeypatch.setattr(surroundings, "watch", watched)
    monkeypatch.setattr(update, "changes", lambda *_, **__: [])
    found.git("init", "--quiet", "--initial-branch=main")
    found.commit({"run.py": "print('one')\n", "hivematrix.toml": DECLARED, "migrate.sh": "true\n"})
    source = git_source_of(str(repository), files=True)
    builder = ModuleBuild(place, found.settings, "desk", source, "", found.options)
    record, version = builder.build(builder.preflight())
    place_entry(place, record, version)
    write_record(found.places, record.activated(version.id, time.time()))
    (found.places.shared / "instance").mkdir(exist_ok=True)
    (found.places.shared / "instance/uploads").write_text("a user's")
    (found.places.shared / ".flaskenv").write_text("KEY=secret\n")
    # Versions are named by the second, so each look at the clock takes one.
    clock = itertools.count(int(time.time()) + 10)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    yield found


def test_an_update_serves_the_new_commit_with_the_same_state(desk: Desk) -> None:
    state, old = desk.state(), desk.record.active
    commit = desk.commit({"run.py": "print('two')\n", "migrate.sh": "echo migrated >> instance/log\n"})
    outcome = desk.updates().update()
    assert outcome.changed and outcome.commit == commit == desk.serves == desk.record.commit
    assert desk.state()["instance/uploads"] == state["instance/uploads"]
    assert desk.state()["instance/log"] == "migrated\n"
    kept = desk.record.version(old)
    assert kept is not None and kept.state == "kept" and kept.data
    assert desk.record.history[-1].action == "update" and desk.record.history[-1].ok
    assert desk.machine.running and not interrupted(desk.layout)
    assert "watching it" in desk.steps
    assert not desk.updates().update().changed


@pytest.mark.parametrize("before", ["", "MINE=1\n"])
def test_what_was_made_for_a_version_that_is_rolled_back_is_removed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """The next update would find a database that is half migrated."""
    dropped = []
    monkeypatch.setattr(made, "database_exists", lambda admin, name: False)
    monkeypatch.setattr(made, "role_exists", lambda admin, name: False)
    monkeypatch.setattr(made, "drop_database", lambda admin, name: dropped.append(f"database {name}"))
    monkeypatch.setattr(made, "drop_role", lambda admin, name: dropped.append(f"role {name}"))
    desk.layout.settings_file.write_text('[suite]\ndatabase = "postgresql://postgres@127.0.0.1:1/postgres"\n')
    settings = load_effective(desk.layout).settings
    monkeypatch.setattr(
        surroundings, "ensure_databases", lambda registry, place, *_: put_uris(registry, place, settings)
    )
    secrets = desk.layout.secrets_file("desk")
    secrets.parent.mkdir(parents=True, exist_ok=True)
    if before:
        secrets.write_text(before)
    declared = DECLARED.replace("port = 5099", 'port = 5099\ndatabase = true\nsecrets = ["TOKEN"]')
    seen = desk.layout.home / "seen"
    desk.commit({"hivematrix.toml": declared, "migrate.sh": f"cp {secrets} {seen}; exit 1\n"})
    with pytest.raises(RolledBackError, match="rolled back at its migration"):
        desk.updates().update()
    assert "DATABASE_URL=" in seen.read_text() and "TOKEN=" in seen.read_text()
    assert dropped == ["database desk", "role desk"]
    assert (secrets.read_text() if before else secrets.exists()) == (before or False)


def test_what_only_looks_starts_no_server(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the daily look, while an admin has the suite stopped."""
    desk.commit({"hivematrix.toml": DECLARED.replace("port = 5099", "port = 5099\ndatabase = true")})
    monkeypatch.setattr(surroundings, "ensure_databases", lambda *_: ())
    asked: list[bool] = []

    def administration(self: ModuleData) -> str:
        asked.append(True)
        raise ModuleError("no server")

    monkeypatch.setattr(ModuleData, "administration", property(administration))
    # As it was installed with a database.
    desk.places.declared.write_text(
        desk.places.declared.read_text().replace("port = 5099", "port = 5099\ndatabase = true")
    )
    desk.machine.running = False
    assert desk.updates().plan().obstacles == () and desk.updates()._data().database == "desk"
    assert "desk: PostgreSQL is stopped, so that the size of its database is not counted" in desk.said
    with pytest.raises(HelmError, match="PostgreSQL is stopped"):
        desk.updates().kept()
    assert not asked
    desk.machine.running = True
    assert desk.updates().plan().obstacles == ("no server.",) and asked


def test_a_plan_changes_nothing(desk: Desk) -> None:
    before = desk.record
    desk.commit({"run.py": "print('two')\n", "requirements.txt": "flask==3\n"})
    plan = desk.updates().plan()
    assert plan.requirements == ("+flask==3",) and not plan.nothing and plan.migrate == "/bin/sh migrate.sh"
    assert [(each.subject, each.author) for each in plan.commits] == [("change it", "a")] and plan.downtime is None
    assert plan.behind == 1 and plan.commits[0].at > 1e9
    kept = read_check(desk.places)
    assert kept is not None and (kept.plan, kept.trouble, behind_of(kept, desk.record)) == (plan, "", 1)
    assert (plan.migrate_before, plan.lost, plan.effect, plan.held) == (plan.migrate, (), "", False)
    assert desk.record == before and desk.machine.running and not desk.machine.starts


def test_a_plan_says_what_an_older_or_rewritten_branch_loses(desk: Desk) -> None:
    first = desk.record.commit
    desk.commit({"run.py": "print('two')\n"})
    assert desk.updates().update().changed
    declared = DECLARED.replace("migrate.sh", "other.sh").replace('".flaskenv"', '".flaskenv", "uploads"')
    desk.git("reset", "--quiet", "--hard", first)
    last = desk.commit({"hivematrix.toml": declared})
    plan = desk.updates().plan()
    assert (plan.after, len(plan.commits), len(plan.lost)) == (last, 1, 1)
    assert (plan.migrate, plan.migrate_before) == ("/bin/sh other.sh", "/bin/sh migrate.sh")
    assert plan.shared_paths == ("uploads",)
    assert len(plan.downtimes) == 1 and plan.downtime == plan.downtimes[0]


def test_a_pending_change_of_the_configuration_is_no_difference_of_the_versions(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.commit({"run.py": "print('two')\n"})
    desk.layout.registry_file.write_text(
        '[services.desk]\nshared_paths = ["instance", ".flaskenv", "later"]\ninstall.migrate = ["/bin/sh", "mine.sh"]\n'
    )
    pending = Change("hivematrix-desk.service", "changed", "a", "b")
    monkeypatch.setattr(update, "changes", lambda *_, **__: [pending])
    (desk.places.version(desk.record.active) / "run.py").write_text("edited")
    plan = desk.updates().plan()
    assert plan.migrate == plan.migrate_before == "/bin/sh mine.sh"
    assert plan.shared_paths == ("later",), "the version that serves was made without it"
    unit, tree = plan.obstacles
    assert unit.startswith("hivematrix-desk.service is not as its configuration says. See: helmctl diff desk")
    assert tree.startswith("files of the version that serves were changed: run.py.")
    with pytest.raises(RolledBackError, match="is not as its configuration says"):
        desk.updates().update()


def test_texts_of_commits_are_hostile(desk: Desk) -> None:
    message = desk.repository.with_name("message")
    message.write_text("<script>\u202e" * 100_000)
    author = ["-c", "user.name=E\x1b[2Jve <b>", "-c", "user.email=e@example.org"]
    desk.git(*author, "commit", "--quiet", "--allow-empty", f"--file={message}")
    for number in range(101):
        desk.commit({"run.py": f"print({number})\n"})
    plan = desk.updates().plan()
    assert plan.behind == 102 and len(plan.commits) == 100, "the oldest are counted alone"
    desk.git("reset", "--quiet", "--hard", "HEAD~101")
    (commit,) = desk.updates().plan().commits
    assert commit.author.startswith("E\\x1b[2Jve") and commit.subject.startswith("<script>\\u202e")
    assert len(commit.subject) <= 200 and commit.subject.isprintable()


def test_what_was_not_planned_is_refused(desk: Desk) -> None:
    first = desk.commit({"run.py": "print('two')\n"})
    assert desk.updates().plan().after == first
    desk.commit({"run.py": "print('three')\n"})
    with pytest.raises(ModuleError, match=f"for commit {first[:12]}, and now it would be"):
        desk.updates().update(planned=first)
    assert len(desk.record.versions) == 1
    found = read_check(desk.places)
    assert found is not None and behind_of(found, desk.record) == 2, "the new plan can be looked at"
    assert desk.updates().update(planned=desk.git("rev-parse", "HEAD")).changed
    assert behind_of(found, desk.record) == 0


def test_a_look_that_fails_keeps_the_plan_from_before(desk: Desk) -> None:
    desk.commit({"run.py": "print('two')\n"})
    plan = desk.updates().plan()
    with pytest.raises(HelmError):
        desk.updates().plan("gone")
    desk.repository.rename(desk.repository.with_name("away"))
    with pytest.raises(ModuleError):
        desk.updates().plan()
    kept = read_check(desk.places)
    assert kept is not None and kept.plan == plan and kept.checked_at > kept.made_at
    assert kept.trouble == f"{desk.repository} is not a directory"


def test_the_plan_for_another_ref_is_kept_apart(desk: Desk) -> None:
    desk.git("checkout", "--quiet", "-b", "next")
    desk.commit({"run.py": "print('two')\n"})
    desk.git("checkout", "--quiet", "main")
    plan = desk.updates().plan("next")
    assert plan.behind == 1 and read_check(desk.places) is None
    reply = shown_plan(desk.layout, "desk", "next")
    assert reply.plan is not None and (reply.plan.after, reply.stale, reply.trouble) == (plan.after, "", "")
    with pytest.raises(HelmError):
        desk.updates().plan("gone")
    gone = shown_plan(desk.layout, "desk", "gone")
    assert gone.plan is None and "gone" in gone.trouble
    assert shown_plan(desk.layout, "desk", "never").checked_at is None
    assert desk.updates().update("next").changed
    assert behind_of(read_check(desk.places), desk.record) == 0, "what was done is known"


def test_a_plan_says_that_the_disk_is_too_small(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.commit({"run.py": "print('two')\n"})
    monkeypatch.setattr("helmd.operations.modules.data.size_below", lambda place: 1 << 60)
    (obstacle,) = desk.updates().plan().obstacles
    assert "MB free, and the update needs" in obstacle


def fails_at_start(desk: Desk) -> None:
    old = desk.record.active

    def start(version: str) -> None:
        if version != old:
            raise StartFailedError("it exited with code 1", lines=["no module named flask"])

    desk.start = start
    desk.commit({"run.py": "print('two')\n"})


def fails_at_the_gate(desk: Desk) -> None:
    def gate(policy: GatePolicy) -> None:
        if policy.errors_before < 1000:
            (desk.places.shared / "instance/later").write_text("a user wrote this")
            raise ModuleError("an asset of its page: HTTP 500")

    desk.gate = gate
    desk.commit({"run.py": "print('two')\n", "migrate.sh": "rm instance/uploads\n"})


def fails_in_its_migration(desk: Desk) -> None:
    desk.commit({"migrate.sh": "rm instance/uploads; echo half done; exit 3\n"})


def fails_while_it_is_built(desk: Desk) -> None:
    desk.commit({"wrong.py": "def\n"})


def is_cancelled(desk: Desk) -> None:
    def gate(policy: GatePolicy) -> None:
        if policy.errors_before < 1000:
            raise KeyboardInterrupt

    desk.gate = gate
    desk.commit({"run.py": "print('two')\n", "migrate.sh": "rm instance/uploads\n"})


@pytest.mark.parametrize(
    ("breaks", "why"),
    [
        (fails_at_start, "rolled back at its start: it exited with code 1"),
        (fails_at_the_gate, "rolled back at watching it: an asset of its page: HTTP 500"),
        (fails_in_its_migration, "rolled back at its migration: /bin/sh migrate.sh of desk failed: half done"),
        (fails_while_it_is_built, "rolled back at building it: its programs could not be compiled"),
        (is_cancelled, "rolled back at watching it: it was cancelled"),
    ],
)
def test_what_fails_leaves_the_old_version_with_its_data(desk: Desk, breaks: Callable[[Desk], None], why: str) -> None:
    state, old = desk.state(), desk.serves
    breaks(desk)
    with pytest.raises(BaseException) as caught:
        desk.updates().update()
    assert isinstance(caught.value, KeyboardInterrupt if breaks is is_cancelled else RolledBackError)
    assert desk.state() == state and desk.serves == old == desk.record.commit
    assert desk.machine.running and not interrupted(desk.layout)
    entry = desk.record.history[-1]
    assert why in entry.sentence and not entry.ok and entry.by == "hive"
    assert [each.state for each in desk.record.versions] == ["active", "failed"]
    assert (desk.places.logs / f"{desk.record.versions[1].id}.log").exists()
    assert not desk.places.reserve.exists() and not desk.places.start_block.exists()
    later = list(desk.places.root.glob("failed/*/instance/later"))
    if breaks is fails_at_the_gate:
        assert [each.read_text() for each in later] == ["a user wrote this"]
        assert f"is kept: {desk.places.root}/failed/" in entry.sentence
    else:
        assert not list(desk.places.root.glob("failed/*"))
    assert not list(desk.places.root.glob("snapshots/*"))
    kept = desk.updates().kept()
    assert [each.what for each in kept] == (["files"] if breaks is fails_at_the_gate else [])
    # The next one succeeds, and clears the failed one away, but not what was written to it.
    desk.gate, desk.start = (lambda policy: None), (lambda version: None)
    desk.git("rm", "--quiet", "--force", "--ignore-unmatch", "wrong.py")
    commit = desk.commit({"run.py": "print('three')\n", "migrate.sh": "true\n"})
    assert desk.updates().update().commit == commit == desk.serves
    assert sorted(each.state for each in desk.record.versions) == ["active", "kept", "removed"]
    assert desk.updates().kept() == kept and not desk.updates().prune(10_000.0)
    assert desk.updates().prune(0.0) == kept and not desk.updates().kept()


def test_what_was_written_to_a_failed_version_is_removed_after_a_month(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at_the_gate(desk)
    with pytest.raises(RolledBackError):
        desk.updates().update()
    (kept,) = desk.updates().kept()
    assert kept.size == sum(each.stat().st_size for each in Path(kept.where).rglob("*") if each.is_file())
    desk.gate = lambda policy: None
    own = Path(kept.where).with_name("for-the-auditors")
    own.mkdir()
    for days in (29, 31):
        clock = itertools.count(int(kept.at) + days * 86400)
        monkeypatch.setattr(time, "time", lambda clock=clock: float(next(clock)))
        desk.commit({"run.py": f"print({days})\n", "migrate.sh": "true\n"})
        assert desk.updates().update().changed
        assert Path(kept.where).exists() is (days == 29)
    assert own.exists()


def test_space_is_kept_for_going_back(desk: Desk) -> None:
    """What the new version fills is not needed for putting the old one in its place."""
    sizes = []

    def start(version: str) -> None:
        sizes.append(desk.places.reserve.stat().st_blocks * 512 if desk.places.reserve.exists() else 0)
        if len(sizes) == 1:
            raise StartFailedError("No space left on device")

    desk.start = start
    desk.commit({"run.py": "print('two')\n"})
    with pytest.raises(RolledBackError):
        desk.updates().update()
    assert sizes[0] >= RESERVE and sizes[1] == 0
    assert desk.updates().update().changed and not desk.places.reserve.exists()


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("step", ["build", "snapshot", "data", "record", "start", "gate"])
@pytest.mark.parametrize("boot", [False, True])
def test_killed_after_a_step_it_is_recovered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, step: str, boot: bool
) -> None:
    state, old = desk.state(), desk.serves
    desk.commit({"run.py": "print('two')\n", "migrate.sh": "rm instance/uploads\n"})
    real = getattr(ModuleSteps, f"_do_{step}")

    def dies(self: ModuleSteps, intent: Any) -> Any:
        real(self, intent)
        raise Killed

    def nothing(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as killed:
        killed.setattr(ModuleSteps, f"_do_{step}", dies)
        killed.setattr(IntentLog, "note", nothing)
        with pytest.raises(Killed):
            desk.updates().update()
    assert interrupted(desk.layout) == ["desk"] and len(desk.machine.guards) == 1
    # Nobody starts it on what may be of two versions.
    assert desk.places.start_block.exists() is (step in ("snapshot", "data", "record"))
    # What kills while files are replaced and copied leaves parts of them.
    left = [entry_file(desk.layout, "desk"), desk.places.record, desk.places.declared, desk.layout.unit_file(UNIT)]
    left = [each.with_name(f".{each.name}.0badc0de") for each in left]
    for each in left:
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_text("half of")
    if step == "snapshot":
        (stamp,) = desk.places.snapshot("x").parent.iterdir()
        stamp.rename(stamp.with_name(f".{stamp.name}.partial"))
    if boot:
        desk.machine.running = False
        assert recover_at_boot(desk.layout, desk.settings, desk.machine, desk.options) == []  # type: ignore[arg-type]
        assert not desk.places.start_block.exists()
        # The rest is done by another unit, since nothing can be started now.
        assert len(desk.machine.guards) == (1 if step == "build" else 2)
        assert desk.state() == state and desk.serves == old
        desk.machine.running = True
    # Before the module was stopped, nothing is left to be done by then.
    assert desk.recovered() is not (boot and step == "build")
    assert desk.state() == state and desk.serves == old and desk.machine.running
    assert not interrupted(desk.layout) and not list(desk.places.root.glob("snapshots/*"))
    assert not desk.recovered() and not desk.places.start_block.exists()
    assert not any(each.exists() for each in left) and not list((desk.places.root / "snapshots").glob(".*"))
    assert "it was interrupted" in desk.record.history[-1].sentence


def test_rolled_back_with_data_and_without(desk: Desk) -> None:
    state, first = desk.state(), desk.serves
    second = desk.commit(
        {"run.py": "print('two')\n", "migrate.sh": "rm -f instance/uploads; echo new > instance/log\n"}
    )
    desk.updates().update()
    assert "instance/uploads" not in desk.state()
    outcome = desk.updates().rollback(with_data=True)
    assert outcome.commit == first == desk.serves and desk.state() == state
    assert desk.record.history[-1].sentence.startswith("rolled back, with its data, to commit")
    # And forward again, which is a rollback as well.
    assert desk.updates().rollback(with_data=False).commit == second == desk.serves
    assert desk.state()["instance/uploads"] == "a user's" and "instance/log" not in desk.state()
    (version,) = [each for each in desk.record.versions if each.state == "kept"]
    assert version.commit == first and version.data
    with pytest.raises(UsageError, match="has no version nothing"):
        desk.updates().rollback(with_data=False, to="nothing")


def test_a_rollback_that_fails_stays_with_the_newer_one(desk: Desk) -> None:
    second = desk.commit({"run.py": "print('two')\n"})
    desk.updates().update()
    state = desk.state()

    def gate(policy: GatePolicy) -> None:
        if policy.errors_before < 1000:
            raise ModuleError("its health check fails")

    desk.gate = gate
    with pytest.raises(RolledBackError, match="the rollback of desk was rolled back at watching it"):
        desk.updates().rollback(with_data=True)
    assert desk.serves == second and desk.state() == state


def test_what_is_held_or_changed_is_left_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    old = desk.serves
    desk.commit({"run.py": "print('two')\n"})
    assert hold_module(desk.layout, "desk", True, "until the fair", "hive")
    with pytest.raises(ModuleError, match="desk is held: until the fair"):
        desk.updates().update()
    assert hold_module(desk.layout, "desk", False, "", "hive")
    assert not hold_module(desk.layout, "desk", False, "", "hive")
    monkeypatch.setattr(hold, "_WAIT_SECONDS", 0.0)
    with locked(desk.places.lock, "x"), pytest.raises(LockedError, match="desk is being changed"):
        hold_module(desk.layout, "desk", True, "", "hive")
    (desk.places.version(desk.record.active) / "run.py").write_text("print('repaired')\n")
    with pytest.raises(RolledBackError, match=r"files of the version that serves were changed: run\.py"):
        desk.updates().update()
    assert desk.serves == old and not desk.machine.starts and desk.machine.running
    assert desk.updates().update(discard=True).changed


def test_a_module_that_did_not_run_does_not_run_afterwards(desk: Desk) -> None:
    desk.machine.running = False
    desk.commit({"run.py": "print('two')\n"})
    assert desk.updates().update().changed
    assert desk.machine.starts == 1 and not desk.machine.running


def test_another_revision_is_followed_from_then_on_unless_it_fails(desk: Desk) -> None:
    desk.git("checkout", "--quiet", "-b", "next")
    fails_at_start(desk)
    desk.git("checkout", "--quiet", "main")
    with pytest.raises(RolledBackError):
        desk.updates().update("next")
    assert desk.record.ref == ""
    desk.start = lambda version: None
    assert desk.updates().update("next").changed and desk.record.ref == "next"
    with pytest.raises(HelmError, match="no branch, tag or commit 'gone'"):
        desk.updates().update("gone")


def test_the_disk_is_looked_at_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.commit({"run.py": "print('two')\n"})
    monkeypatch.setattr("helmd.operations.modules.data.size_below", lambda place: 1 << 60)
    with pytest.raises(RolledBackError, match="MB free, and the update needs"):
        desk.updates().update()
    assert not desk.machine.starts and len(desk.record.versions) == 1


def test_what_is_no_module_is_refused(desk: Desk) -> None:
    updates = ModuleUpdates(desk.layout, desk.settings, desk.machine, "core", desk.options, lambda step: None)  # type: ignore[arg-type]
    for call in (updates.update, updates.plan, lambda: updates.rollback(False)):
        with pytest.raises(UsageError, match="core is not a module that was installed from git"):
            call()
    assert not desk.layout.module("core").state.exists()
    with pytest.raises(UsageError):
        ModuleUpdates(desk.layout, desk.settings, desk.machine, "../x", desk.options, lambda step: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [False, True])
def test_a_removed_module_leaves_what_it_was_asked_to(desk: Desk, monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    monkeypatch.setattr(remove, "changes", lambda *_, **__: [])
    monkeypatch.setattr(remove, "apply", lambda *_: None)
    monkeypatch.setattr(remove, "run_unit", lambda *_, **__: None)
    monkeypatch.setattr(remove, "Signals", lambda: open(os.devnull))  # noqa: SIM115
    monkeypatch.setattr(Machine, "subscribe", lambda self: None, raising=False)
    desk.commit({"run.py": "print('two')\n"})
    desk.updates().update()
    remove.remove_module(desk.updates(), keep, lambda sentence: None)
    assert not entry_file(desk.layout, "desk").exists() and not desk.places.state.exists()
    left = sorted(str(each.relative_to(desk.places.root)) for each in desk.places.root.rglob("*") if each.is_file())
    assert left == (["shared/.flaskenv", "shared/instance/uploads"] if keep else [])
    assert desk.places.root.exists() is keep
    with pytest.raises(UsageError):
        desk.updates().update()


def test_data_that_was_kept_can_be_removed_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what a removal has left that was killed after the module was taken out of the suite."""
    dropped: list[str] = []
    monkeypatch.setattr(remove, "changes", lambda *_, **__: [])
    monkeypatch.setattr(remove, "apply", lambda *_: None)
    monkeypatch.setattr(remove, "drop_role", lambda admin, name: dropped.append(f"role {name}"))
    monkeypatch.setattr(data, "copies_of", lambda admin, name: [])
    monkeypatch.setattr(data, "drop_database", lambda admin, name: dropped.append(f"database {name}"))
    desk.layout.settings_file.write_text('[suite]\ndatabase = "postgresql://postgres@127.0.0.1:1/postgres"\n')
    secrets = desk.layout.secrets_file("desk")
    secrets.parent.mkdir(parents=True, exist_ok=True)
    uri = "postgresql://desk:a%2Fb@127.0.0.1:1/desk_rows"
    secrets.write_text(f'HIVEMATRIX_DATABASE_PASSWORD="a/b"\nOTHER="postgresql://desk:x@y/z"\nDSN="{uri}"\n')
    entry_file(desk.layout, "desk").unlink()
    monkeypatch.setattr(Machine, "facts", lambda self, unit: UnitFacts(unit, "not-found", "inactive"))
    assert remove.removal_plan(desk.updates(), keep_data=False).database == "desk_rows"
    remove.remove_module(desk.updates(), False, lambda sentence: None)
    assert dropped == ["database desk_rows", "role desk"]
    assert not secrets.exists() and not desk.places.root.exists()


def test_two_changes_of_one_module_wait_for_one_another(desk: Desk) -> None:
    import threading

    desk.commit({"run.py": "print('two')\n"})
    inside, order = threading.Event(), []

    def gate(policy: GatePolicy) -> None:
        inside.set()
        time.sleep(0.3)
        order.append("first")

    desk.gate = gate
    first = threading.Thread(target=lambda: desk.updates().update())
    first.start()
    assert inside.wait(WITHIN)
    assert not desk.updates().update().changed
    order.append("second")
    first.join()
    assert order == ["first", "second"] and any(
        "desk: waiting for the update by hive that began at " in each for each in desk.said
    )


def test_what_can_not_be_restored_at_boot_is_not_started(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    IntentLog.begun(desk.places.state, "update", "desk", desk.record.active, {"ran": True}).write("enter", "stop")
    with monkeypatch.context() as away:
        away.setattr(ModuleSteps, "_undo_halt", failing("PostgreSQL is away"))
        (error,) = recover_at_boot(desk.layout, desk.settings, desk.machine, desk.options)  # type: ignore[arg-type]
    assert "desk can't be rolled back to" in error.sentence
    # What was away may be there once the machine has booted.
    assert len(desk.machine.guards) == 1
    words = [str(TOP / "packaging/libexec/prestart"), f"blocked={desk.places.start_block}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode == 1 and "desk is not started: desk can't be rolled back to" in done.stderr
    assert "PostgreSQL is away. Once that is corrected, run: helmctl modules recover" in done.stderr
    (found,) = doctor_suite.modules(DoctorContext(desk.layout))
    assert found.verdict == "bad" and "is not started until" in found.sentence
    assert found.fix.startswith("helmctl modules recover desk")
    assert desk.recovered() and subprocess.run(words, capture_output=True, timeout=WITHIN, check=False).returncode == 0
    assert [each.verdict for each in doctor_suite.modules(DoctorContext(desk.layout))] == ["ok"]


@pytest.mark.parametrize("how", ["committed", "building"])
def test_what_is_whole_is_started_at_boot(desk: Desk, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    log = IntentLog.begun(desk.places.state, "update", "desk", desk.record.active, {"ran": True})
    log.write("enter", "build")
    if how == "committed":
        log.write("done", "build", version=desk.record.active)
        log.write("enter", "stop")
        log.write("committed")
    guards = len(desk.machine.guards)
    with monkeypatch.context() as away:
        for step in ("_after_copies", "_undo_discard"):
            away.setattr(ModuleSteps, step, failing("PostgreSQL is away"))
        (error,) = recover_at_boot(desk.layout, desk.settings, desk.machine, desk.options)  # type: ignore[arg-type]
    assert "PostgreSQL is away" in error.sentence and not desk.places.start_block.exists()
    assert interrupted(desk.layout) == ["desk"] and len(desk.machine.guards) == guards + 1
    assert desk.recovered() and not interrupted(desk.layout)


def test_one_that_can_not_be_locked_keeps_no_other_from_being_recovered(desk: Desk) -> None:
    other = desk.layout.module("aaa")
    other.lock.mkdir(parents=True)
    other.start_block.write_text("x")
    IntentLog.begun(desk.places.state, "update", "desk", desk.record.active, {}).write("enter", "preflight")
    (error,) = recover_at_boot(desk.layout, desk.settings, desk.machine, desk.options)  # type: ignore[arg-type]
    assert "aaa could not be recovered" in error.sentence and interrupted(desk.layout) == ["aaa"]


def test_one_that_is_stuck_keeps_no_other_from_being_recovered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("layout", desk.layout), ("settings", desk.settings), ("manager", desk.machine)):
        monkeypatch.setattr(Context, name, value)
    other = desk.layout.module("aaa")
    other.root.mkdir(parents=True)
    other.lock.mkdir(parents=True)
    IntentLog.begun(other.state, "update", "aaa", "", {})
    IntentLog.begun(desk.places.state, "update", "desk", desk.record.active, {}).write("enter", "preflight")
    recover = modules_recover_command.main
    assert recover([], standalone_mode=False, obj=Context()) == exits.FAILED
    assert "aaa is not recovered: Is a directory" in capsys.readouterr().err
    assert interrupted(desk.layout) == ["aaa"]
    # One alone ends as any command that fails: its guard tries again.
    with pytest.raises(IsADirectoryError):
        recover(["aaa"], standalone_mode=False, obj=Context())
    other.lock.rmdir()
    assert recover(["aaa", "desk"], standalone_mode=False, obj=Context()) == exits.OK
    assert interrupted(desk.layout) == []


def failing(why: str) -> Callable[..., None]:
    def fails(*_: object) -> None:
        raise HelmError(why)

    return fails


def test_a_guard_waits_for_the_lock_and_recovers(desk: Desk, tmp_path: Path) -> None:
    words = {each.name: each.value for each in guard_properties(desk.layout, "desk")}
    ((program, given, ignored),) = words["ExecStart"]
    assert (program, words["Type"], ignored) == (given[0], "exec", False)
    helmctl, said = tmp_path / "helmctl", tmp_path / "said"
    helmctl.write_text(f'#!/bin/sh\necho "$@" > {said}\n')
    helmctl.chmod(0o755)
    given = [str(helmctl) if word == str(desk.layout.helmctl) else word for word in given]
    holder = f"flock {desk.places.lock} sh -c 'echo held; exec sleep 600'"
    with subprocess.Popen(["/bin/sh", "-c", f"exec {holder}"], stdout=subprocess.PIPE, start_new_session=True) as held:
        assert held.stdout is not None and held.stdout.readline() == b"held\n"
        guard = subprocess.Popen(given)
        with pytest.raises(subprocess.TimeoutExpired):
            guard.wait(0.5)
        assert not said.exists()
        os.killpg(held.pid, signal.SIGKILL)
    assert guard.wait(WITHIN) == 0 and said.read_text() == "modules recover desk\n"


def test_a_damaged_intent_is_said_and_nothing_is_done(desk: Desk) -> None:
    IntentLog.begun(desk.places.state, "update", "desk", desk.record.active, {})
    desk.places.intent.write_bytes(b"0badc0de {}\n" + desk.places.intent.read_bytes())
    (error,) = recover_at_boot(desk.layout, desk.settings, desk.machine, desk.options)  # type: ignore[arg-type]
    assert "damaged" in error.sentence and str(desk.places.intent) in error.hint
    assert not desk.machine.guards, "nobody can go on with it"
