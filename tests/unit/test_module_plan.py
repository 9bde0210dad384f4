"""What is said of an update before it is made."""

from dataclasses import replace

from helmd.model.modules.plan import MOST_COMMITS, Commit, UpdatePlan, commits_in, downtimes_of, plan_lines
from helmd.model.modules.record import HistoryEntry

PLAN = UpdatePlan(
    name="desk",
    before="1" * 40,
    after="2" * 40,
    ref="",
    behind=1,
    commits=(Commit("2" * 40, "change it", "Ada", 1_795_000_000.0),),
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
        "    222222222222 2026-11-18 Ada: change it",
        "  who is affected: no other service",
        "  space: 3 MB are needed, 9 MB are free",
        "  time without the module: not known yet, as it was not updated before",
    ]
    assert plan_lines(replace(PLAN, after=PLAN.before)) == ["desk is up to date (commit 111111111111)."]


def test_what_has_to_be_looked_at_is_said() -> None:
    plan = replace(
        PLAN,
        lost=(Commit("1" * 40, "fix it"),),
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
        "    111111111111 date unknown nobody: fix it",
        "  requirements: +flask==3",
        "  migration: python new.py (was: none)",
        "  database: desk_db, copied before",
        "  new state: uploads",
        "  who is affected: tree depends on it.",
        "  time without the module: about 3.0 s, by 3 updates before",
    ):
        assert line in lines


def test_long_lists_say_that_they_are_cut() -> None:
    commits = tuple(Commit(f"{number:040x}", "change") for number in range(MOST_COMMITS))
    plan = replace(PLAN, behind=734, commits=commits, requirements=tuple(f"+p{each}" for each in range(21)))
    lines = plan_lines(replace(plan, lost=commits))
    assert "  734 commits:" in lines and "    and 714 more" in lines and "  and 1 more" in lines
    assert f"  {MOST_COMMITS} commits or more that it has now would be gone:" in lines and "    and 80 more" in lines


def test_text_of_others_is_only_text() -> None:
    (commit,) = commits_in(f"{'2' * 40}\0-5\0E\x07ve   \0a\x1b[2J\nb\u202ec\0".encode())
    assert (commit.author, commit.at) == ("E\\x07ve", 0.0)
    plan = replace(PLAN, commits=(commit,), requirements=("+" + "x" * 500,))
    lines = plan_lines(plan)
    assert "    222222222222 date unknown E\\x07ve: a\\x1b[2J\\x0ab\\u202ec" in lines
    assert all(line.isprintable() and len(line) <= 200 for line in lines)


def test_only_updates_that_were_done_say_how_long_one_takes() -> None:
    history = (
        HistoryEntry(1.0, "install", "", downtime=50.0),
        HistoryEntry(2.0, "update", "", downtime=4.0),
        HistoryEntry(3.0, "update", "", ok=False, downtime=60.0),
        HistoryEntry(4.0, "update", ""),
    )
    assert downtimes_of(history) == (4.0,)


def test_what_git_prints_is_read_as_far_as_it_can_be() -> None:
    assert commits_in(b"") == () and commits_in(b"fatal: bad object\n") == ()
    good = f"{'3' * 40}\x0099999999999\0A\0s\0".encode()
    assert commits_in(good + b"--help\0001\0A\0s\0" + good) == (Commit("3" * 40, "s", "A"),)
    assert commits_in(good + b"\xff\xfe")[0].id == "3" * 40
