"""Changes of a module: killed after, before and within each step, cancelled, failed; on a model of what they change."""

import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from helmd.model.errors import HelmError
from helmd.model.modules.intent import (
    Facts,
    Intent,
    IntentError,
    IntentLine,
    ModuleChange,
    intent_line,
    intent_lines,
    intent_of,
)
from helmd.model.modules.transaction import (
    FORWARD,
    AfterStep,
    ChangeStep,
    Kept,
    UndoStep,
    failure_sentence,
    remaining_undo,
    steps_of,
    undo_of,
)
from helmd.modules.intent_log import INTENT_FILE, IntentLog
from helmd.operations.modules.engine import RolledBackError, StuckError, carry_out, recover

BEFORE, AFTER_ID = "20261128T100000Z-aaaaaaaaaaaa", "20261128T221502Z-bbbbbbbbbbbb"


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, not even its own going back."""


@dataclass
class World:
    """A module as it is on the disk, in PostgreSQL and in systemd."""

    versions: set[str] = field(default_factory=lambda: {BEFORE})
    active: str = BEFORE
    unit: str = BEFORE
    running: str = BEFORE
    """The version whose process runs; empty for none."""
    rows: str = "old rows"
    copy: str | None = None
    aside: str | None = None
    files: str = "old files"
    snapshot: str | None = None
    files_aside: str | None = None
    closed: bool = False

    @property
    def consistent(self) -> str:
        """``old``, ``new``, or what is between."""
        place = (self.active, self.unit, self.running, self.rows, self.files, self.closed)
        if place == (BEFORE, BEFORE, BEFORE, "old rows", "old files", False):
            return "old"
        if place == (AFTER_ID, AFTER_ID, AFTER_ID, "new rows", "new files", False):
            return "new"
        return f"between: {place}"


Trap = Callable[[str, str], None]
"""Called with the when (before, within, after) and the step; may raise."""


class Model:
    """The steps on a `World`, as the real ones do them: what is done twice has the effect of once."""

    def __init__(self, world: World, trap: Trap = lambda when, step: None) -> None:
        self.world = world
        self.trap = trap
        self.did: list[str] = []

    def forward(self, step: ChangeStep, intent: Intent) -> Facts:
        self.trap("before", step)
        self.did.append(step)
        facts = getattr(self, f"_{step}")(intent) or {}
        self.trap("after", step)
        return dict(facts)

    def after(self, step: AfterStep, intent: Intent) -> None:
        self.trap("before", step)
        self.did.append(step)
        if step == "copies":
            self.world.copy = self.world.snapshot = None
        self.trap("after", step)

    def undo(self, step: UndoStep, intent: Intent) -> Facts:
        self.trap("before", f"undo {step}")
        self.did.append(f"undo {step}")
        getattr(self, f"_undo_{step}")(intent)
        self.trap("after", f"undo {step}")
        return {}

    def describe(self, intent: Intent) -> HelmError:
        return RolledBackError(failure_sentence(intent, Kept(), None))

    def _preflight(self, intent: Intent) -> None:
        pass

    def _build(self, intent: Intent) -> Facts:
        self.world.versions.add(AFTER_ID)
        return {"version": AFTER_ID}

    def _stop(self, intent: Intent) -> None:
        self.world.running = ""

    def _close(self, intent: Intent) -> None:
        self.world.closed = True

    def _copy(self, intent: Intent) -> Facts:
        assert self.world.closed and not self.world.running
        self.world.copy = self.world.rows
        return {"copy": "codex_before_x"}

    def _snapshot(self, intent: Intent) -> None:
        assert not self.world.running
        self.world.snapshot = self.world.files

    def _open(self, intent: Intent) -> None:
        self.world.closed = False

    def _data(self, intent: Intent) -> None:
        self.world.rows = "half migrated"
        self.trap("within", "data")
        self.world.rows, self.world.files = "new rows", "new files"

    def _record(self, intent: Intent) -> None:
        self.world.active = intent.after

    def _unit(self, intent: Intent) -> None:
        self.world.unit = self.world.active

    def _start(self, intent: Intent) -> None:
        assert not self.world.closed
        self.world.running = self.world.unit

    def _gate(self, intent: Intent) -> None:
        assert self.world.running == intent.after

    def _undo_halt(self, intent: Intent) -> None:
        self.world.running = ""

    def _undo_database(self, intent: Intent) -> None:
        assert not self.world.running
        if self.world.copy is not None:
            self.world.aside, self.world.rows, self.world.copy = self.world.rows, self.world.copy, None
            self.world.closed = True
        else:
            assert self.world.aside is not None, "neither the copy nor what it replaced is there"

    def _undo_shared(self, intent: Intent) -> None:
        assert not self.world.running
        if self.world.snapshot is not None:
            self.world.files_aside, self.world.files, self.world.snapshot = self.world.files, self.world.snapshot, None

    def _undo_open(self, intent: Intent) -> None:
        self.world.closed = False

    def _undo_record(self, intent: Intent) -> None:
        self.world.active = intent.before

    def _undo_unit(self, intent: Intent) -> None:
        self.world.unit = self.world.active

    def _undo_start(self, intent: Intent) -> None:
        assert not self.world.closed
        self.world.running = self.world.unit

    def _undo_gate(self, intent: Intent) -> None:
        assert self.world.running == intent.before

    def _undo_copies(self, intent: Intent) -> None:
        self.world.copy = self.world.snapshot = None

    def _undo_discard(self, intent: Intent) -> None:
        self.world.versions.discard(intent.after)


def begun(place: Path, change: ModuleChange = "update") -> IntentLog:
    facts = {"after": AFTER_ID} if change.startswith("rollback") else {}
    return IntentLog.begun(place, change, "codex", BEFORE, facts)


def silent(step: str, what: str) -> None:
    pass


def recovered(place: Path, world: World, trap: Trap = lambda when, step: None, only_data: bool = False) -> IntentLog:
    """Return what another process finds and does."""
    log = IntentLog.found(place)
    assert log is not None
    recover(log, Model(world, trap), silent, only_data)
    return log


def dies(when: str, step: str, how: BaseException) -> Trap:
    def trap(now: str, where: str) -> None:
        if (now, where) == (when, step):
            raise how

    return trap


class KilledModel(Model):
    """Killed: going back does not happen in this process."""

    def undo(self, step: UndoStep, intent: Intent) -> Facts:
        raise Killed


TIMES = [
    *itertools.product(("before", "after"), (*FORWARD, "running", "copies", "versions", "report")),
    ("within", "data"),
]


def test_an_update_ends_in_the_new_version(tmp_path: Path) -> None:
    world = World()
    intent = carry_out(begun(tmp_path), Model(world), silent)
    assert world.consistent == "new" and intent.ended and intent.outcome == "committed"
    assert world.copy is None and world.versions == {BEFORE, AFTER_ID}


@pytest.mark.parametrize(("when", "step"), TIMES)
def test_killed_at_each_step_it_ends_in_old_or_new(tmp_path: Path, when: str, step: str) -> None:
    world = World()
    with pytest.raises(Killed):
        carry_out(begun(tmp_path), KilledModel(world, dies(when, step, Killed())), silent)
    log = recovered(tmp_path, world)
    assert world.consistent == ("old" if step in FORWARD else "new")
    assert log.intent.ended and log.intent.direction == "nothing"
    assert recover(log, Model(world, dies("before", "undo halt", Killed())), silent) is False


@pytest.mark.parametrize("change", ["update", "rollback-code", "rollback-data"])
@pytest.mark.parametrize("step", FORWARD)
def test_a_step_that_fails_is_rolled_back_and_named(tmp_path: Path, step: ChangeStep, change: ModuleChange) -> None:
    if step not in steps_of(change):
        return
    world = World()
    with pytest.raises(RolledBackError, match="the disk is full"):
        carry_out(begun(tmp_path, change), Model(world, dies("before", step, HelmError("the disk is full"))), silent)
    assert world.consistent == "old"
    assert BEFORE in world.versions and AFTER_ID not in world.versions


@pytest.mark.parametrize("step", FORWARD)
def test_a_cancellation_is_rolled_back_and_stays_one(tmp_path: Path, step: str) -> None:
    world = World()
    with pytest.raises(KeyboardInterrupt):
        carry_out(begun(tmp_path), Model(world, dies("after", step, KeyboardInterrupt())), silent)
    assert world.consistent == "old"
    log = IntentLog.found(tmp_path)
    assert log is not None and log.intent.ended and log.intent.reason == "it was cancelled"


def test_a_cancellation_during_the_commit_comes_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file has is what is done: otherwise a power cut while it goes back would have it go forward."""
    world, log, flush = World(), begun(tmp_path), os.fdatasync

    def flushed(descriptor: int) -> None:
        flush(descriptor)
        if b"committed" in (tmp_path / INTENT_FILE).read_bytes().splitlines()[-1]:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "fdatasync", flushed)
    assert carry_out(log, Model(world), silent).outcome == "committed"
    found = IntentLog.found(tmp_path)
    assert found is not None and found.intent.committed and not found.intent.undone
    assert world.consistent == "new"


UNDO = ("halt", "database", "shared", "open", "record", "unit", "start", "gate", "copies", "discard")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", UNDO)
def test_going_back_is_killed_too_and_goes_on(tmp_path: Path, step: str, when: str) -> None:
    world = World()
    with pytest.raises(Killed):
        carry_out(begun(tmp_path), KilledModel(world, dies("after", "gate", Killed())), silent)
    with pytest.raises(Killed):
        recovered(tmp_path, world, dies(when, f"undo {step}", Killed()))
    recovered(tmp_path, world)
    assert world.consistent == "old"


@pytest.mark.parametrize("step", FORWARD)
def test_at_boot_data_and_code_are_restored_and_the_rest_follows(tmp_path: Path, step: str) -> None:
    world = World()
    with pytest.raises(Killed):
        carry_out(begun(tmp_path), KilledModel(world, dies("after", step, Killed())), silent)
    world.running = ""
    log = recovered(tmp_path, world, only_data=True)
    assert (world.active, world.unit, world.rows, world.files) == (BEFORE, BEFORE, "old rows", "old files")
    assert not world.running and not world.closed
    # systemd starts it with the suite, and users write.
    world.running, world.rows = world.unit, "old rows and more"
    if log.intent.ended:
        return
    recovered(tmp_path, world)
    assert world.rows == "old rows and more" and world.running == BEFORE


def test_what_was_written_meanwhile_stays(tmp_path: Path) -> None:
    world = World()

    def written(when: str, step: str) -> None:
        if (when, step) == ("before", "gate"):
            world.rows, world.files = "new rows and a user's", "new files and a user's"
            raise HelmError("HTTP 500")

    with pytest.raises(RolledBackError):
        carry_out(begun(tmp_path), Model(world, written), silent)
    assert world.consistent == "old"
    assert (world.aside, world.files_aside) == ("new rows and a user's", "new files and a user's")


@pytest.mark.parametrize("step", ["database", "shared", "record", "unit"])
def test_nothing_is_started_on_what_could_not_be_restored(tmp_path: Path, step: str) -> None:
    world = World()
    traps = {("before", "gate"): HelmError("HTTP 500"), ("before", f"undo {step}"): HelmError("PostgreSQL is away")}

    def trap(when: str, where: str) -> None:
        if error := traps.pop((when, where), None):
            raise error

    with pytest.raises(StuckError, match="PostgreSQL is away"):
        carry_out(begun(tmp_path), Model(world, trap), silent)
    assert not world.running
    recovered(tmp_path, world)
    assert world.consistent == "old"


def test_an_old_version_that_is_not_well_either_is_said_and_not_stuck(tmp_path: Path) -> None:
    world = World()
    traps = {("before", "gate"): HelmError("HTTP 500"), ("before", "undo gate"): HelmError("it is unhealthy")}

    def trap(when: str, where: str) -> None:
        if error := traps.pop((when, where), None):
            raise error

    with pytest.raises(RolledBackError):
        carry_out(begun(tmp_path), Model(world, trap), silent)
    log = IntentLog.found(tmp_path)
    assert log is not None and log.intent.ended and log.intent.undone["gate"] == {"trouble": "it is unhealthy"}


def test_the_disk_is_full_of_all_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line can be written any more; it goes back all the same."""
    world, log = World(), begun(tmp_path)

    def full(event: str, step: str = "", **facts: object) -> None:
        raise OSError(28, "No space left on device")

    def trap(when: str, where: str) -> None:
        if (when, where) == ("after", "data"):
            monkeypatch.setattr(log, "write", full)

    with pytest.raises(RolledBackError):
        carry_out(log, Model(world, trap), silent)
    assert world.consistent == "old"


def test_a_stopped_module_that_was_only_copied_keeps_its_own_data() -> None:
    lines = [IntentLine(1, "begin", facts={"change": "update", "module": "codex", "before": BEFORE})]
    lines += [IntentLine(2, "enter", step) for step in FORWARD[: FORWARD.index("data")]]
    intent = intent_of(lines)
    assert intent is not None and undo_of(intent) == ("halt", "open", "start", "gate", "copies", "discard")
    assert remaining_undo(intent) == undo_of(intent)


# The file.


LINES = (
    IntentLine(1.5, "begin", facts={"change": "update", "module": "codex", "before": BEFORE, "ran": True}),
    IntentLine(2, "enter", "preflight"),
    IntentLine(3, "done", "preflight", {"free": 10, "note": "ö\n"}),
    IntentLine(4, "enter", "build"),
)


@pytest.mark.parametrize("cut", range(len(intent_line(LINES[-1]))))
def test_a_torn_last_line_did_not_happen(cut: int) -> None:
    whole = b"".join(map(intent_line, LINES[:-1]))
    assert intent_lines(whole + intent_line(LINES[-1])[:cut]) == (LINES[:-1], len(whole))


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"garbage\n", b"00000000 {}\n\0\0", b"\n"])
def test_what_a_power_cut_leaves_at_the_end_is_no_line(tail: bytes) -> None:
    whole = b"".join(map(intent_line, LINES))
    assert intent_lines(whole + tail) == (LINES, len(whole))


def test_a_torn_line_is_removed_before_more_are_written(tmp_path: Path) -> None:
    log = begun(tmp_path)
    log.write("enter", "preflight")
    with (tmp_path / INTENT_FILE).open("ab") as file:
        file.write(b'0badc0de {"at": 1, ')
    found = IntentLog.found(tmp_path)
    assert found is not None and found.intent == log.intent
    found.write("done", "preflight", free=1)
    again = IntentLog.found(tmp_path)
    assert again is not None and again.intent.done == {"preflight": {"free": 1}}


@pytest.mark.parametrize("place", range(0, len(intent_line(LINES[0])) - 1, 7))
def test_a_damaged_line_in_between_is_an_error(place: int) -> None:
    whole = bytearray(b"".join(map(intent_line, LINES)))
    whole[place] ^= 0x15
    with pytest.raises(IntentError):
        intent_lines(bytes(whole))


def hostile(body: str) -> bytes:
    import zlib

    return f"{zlib.crc32(body.encode()):08x} {body}\n".encode()


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "null",
        '{"at": "x", "event": "begin", "step": "", "facts": {}}',
        '{"at": 1, "event": "rm", "step": "", "facts": {}}',
        '{"at": 1, "event": "enter", "step": "../../etc", "facts": {}}',
        '{"at": 1, "event": "enter", "step": 5, "facts": {}}',
        '{"at": 1, "event": "enter", "step": "stop", "facts": {"a": []}}',
        "[" * 5000,
    ],
)
def test_a_line_with_a_checksum_is_not_trusted_for_it(body: str) -> None:
    with pytest.raises(IntentError):
        intent_lines(hostile(body) + intent_line(LINES[0]))


@pytest.mark.parametrize(
    "lines",
    [
        LINES[1:],
        [IntentLine(1, "begin", facts={"change": "explode", "module": "codex"})],
        [IntentLine(1, "begin", facts={"change": "update", "module": "../x"})],
        [LINES[0], LINES[0]],
        [LINES[0], IntentLine(2, "ended"), IntentLine(3, "enter", "stop")],
    ],
)
def test_lines_that_no_change_has_written_are_an_error(lines: list[IntentLine]) -> None:
    with pytest.raises(IntentError):
        intent_of(lines)


def test_an_intent_that_is_too_large_or_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / INTENT_FILE).write_bytes(b"x" * (2 << 20))
    with pytest.raises(IntentError, match="too large"):
        IntentLog.found(tmp_path)
    (tmp_path / INTENT_FILE).unlink()
    (tmp_path / INTENT_FILE).symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        IntentLog.found(tmp_path)


def test_the_sentence_says_which_step_and_why_and_what_is_kept() -> None:
    lines = [*LINES, *(IntentLine(5, "enter", step) for step in FORWARD[2:])]
    intent = intent_of([*lines, IntentLine(9, "failed", "gate", {"reason": "the page was answered by HTTP 500"})])
    assert intent is not None
    sentence = failure_sentence(intent, Kept("codex_failed_x", "/m/failed", rows=3), 4.25)
    assert sentence == (
        "the update of codex was rolled back at watching it: the page was answered by HTTP 500;"
        f" {BEFORE} is in place again, with its data, after 4.2 s without the module;"
        " what was written meanwhile is kept: the database codex_failed_x and /m/failed;"
        " to read it: helmctl modules show codex"
    )
