"""What is said of an update before it is made."""

from dataclasses import replace

from helmd.model.modules.plan import MOST_COMMITS, UpdatePlan, downtimes_of, plan_lines
from helmd.model.modules.record import HistoryEntry

PLAN = UpdatePlan(
    name="desk",
    before="1" * 40,
    after="2" * 40,
    ref="",
    commits=("222222222222 change it",),
    lost=(),
    requirements=(),
    migrate="",
    migrate_before="",
    database="",
    shared_paths=(),
    effect="",
    held=False,
    held_reason="",
    obstacles=(),
    need=3 << 20,
    free=9 << 20,
    downtimes=(),
)


def test_a_plan_in_words() -> None:
    assert plan_lines(PLAN) == [
        "desk: commit 111111111111 -> 222222222222, default branch",
        "  1 commit:",
        "    222222222222 change it",
        "  who is affected: no other service",
        "  space: 3 MB are needed, 9 MB are free",
        "  time without the module: not known yet, as it was not updated before",
    ]
    assert plan_lines(replace(PLAN, after=PLAN.before)) == ["desk is up to date (commit 111111111111)."]


def test_what_has_to_be_looked_at_is_said() -> None:
    plan = replace(
        PLAN,
        lost=("111111111111 fix it",),
        requirements=("-flask==2", "+flask==3"),
        migrate="python new.py",
        database="desk_db",
        shared_paths=("uploads",),
        effect="tree depends on it.",
        held=True,
        held_reason="the fair",
        obstacles=("hivematrix-desk.service is not as its configuration says. See: helmctl diff desk",),
        downtimes=(2.0, 9.0, 3.0),
    )
    lines = plan_lines(plan)
    for line in (
        "  held (the fair): not updated before helmctl modules unhold desk",
        "  refused as it is: hivematrix-desk.service is not as its configuration says. See: helmctl diff desk",
        "  1 commit that it has now would be gone:",
        "  requirements: +flask==3",
        "  migration: python new.py (was: none)",
        "  database: desk_db, copied before",
        "  new state: uploads",
        "  who is affected: tree depends on it.",
        "  time without the module: about 3.0 s, by 3 updates before",
    ):
        assert line in lines


def test_long_lists_say_that_they_are_cut() -> None:
    commits = tuple(f"{number:012x} change" for number in range(MOST_COMMITS))
    lines = plan_lines(replace(PLAN, commits=commits, requirements=tuple(f"+p{each}" for each in range(21))))
    assert f"  {MOST_COMMITS} commits or more:" in lines
    assert "    and 80 more" in lines and "  and 1 more" in lines


def test_text_of_others_is_only_text() -> None:
    plan = replace(PLAN, commits=("222222222222 a\x1b[2J\nb\u202ec",), requirements=("+" + "x" * 500,))
    lines = plan_lines(plan)
    assert "    222222222222 a\\x1b[2J\\x0ab\\u202ec" in lines
    assert all(line.isprintable() and len(line) <= 200 for line in lines)


def test_only_updates_that_were_done_say_how_long_one_takes() -> None:
    history = (
        HistoryEntry(1.0, "install", "", downtime=50.0),
        HistoryEntry(2.0, "update", "", downtime=4.0),
        HistoryEntry(3.0, "update", "", ok=False, downtime=60.0),
        HistoryEntry(4.0, "update", ""),
    )
    assert downtimes_of(history) == (4.0,)
