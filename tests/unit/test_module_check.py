"""What is kept of the last look for an update, and read again."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from helmd.cli.context import Context
from helmd.cli.module_update import plan_each
from helmd.model.errors import LockedError
from helmd.model.layout import layout
from helmd.model.modules.check import UpdateCheck, behind_of, check_of, check_of_installation, check_text, stale_reason
from helmd.model.modules.plan import Commit
from helmd.model.modules.record import ModuleRecord, Version, version_id
from helmd.modules.records import KEPT_CHECKS, read_check, write_check, write_record
from helmd.operations.jobs.engine import TooManyJobsError
from helmd.operations.modules.daily import DAY, DailyChecks, due_modules
from helmd.operations.modules.shown import plan_reply
from tests.unit.test_module_plan import PLAN

DAYS = 1_795_000_000.0
OLD = version_id(DAYS, PLAN.before)
RECORD = ModuleRecord(
    "desk", "https://git.example.org/desk", commit=PLAN.before, active=OLD,
    versions=(Version(OLD, PLAN.before, "active", DAYS, served_at=DAYS),),
)  # fmt: skip
FULL = replace(
    PLAN,
    behind=3,
    lost=(Commit("4" * 40, "gone", "Bo", 9.0),),
    obstacles=("no",),
    requirements=("+a",),
    downtimes=(2.5,),
)
CHECK = UpdateCheck(DAYS, "", DAYS, FULL)


def test_a_check_is_read_as_it_was_written(tmp_path: Path) -> None:
    places = layout({}, tmp_path, 1000, tmp_path).module("desk")
    assert read_check(places) is None
    for check in (CHECK, UpdateCheck(5.0, "it could not be fetched")):
        write_check(places, check)
        assert read_check(places) == check
    assert oct(places.check.stat().st_mode & 0o777) == "0o600"
    places.check.unlink()
    places.check.symlink_to("/etc/passwd")
    assert read_check(places) is None, "nothing is read through a link"
    places.check.unlink()
    os.mkfifo(places.check)
    assert read_check(places) is None
    places.check.unlink()
    places.check.write_text(" " * (1 << 20) + check_text(CHECK))
    assert read_check(places) is None, "it is too large"


def test_of_refs_that_are_not_followed_the_newest_are_kept(tmp_path: Path) -> None:
    places = layout({}, tmp_path, 1000, tmp_path).module("desk")
    write_check(places, CHECK)
    refs = ["../../x", "\u202e", *(f"v{number}" for number in range(KEPT_CHECKS))]
    for age, ref in enumerate(reversed(refs)):
        write_check(places, replace(CHECK, checked_at=float(age), plan=replace(FULL, ref=ref)), ref)
        os.utime(places.check_for(ref), (age, age))
    # Time stamps may be equal on a fast machine; here they are not.
    write_check(places, CHECK, "last")
    kept = [ref for ref in refs if read_check(places, ref) is not None]
    assert len(list(places.check_for("last").parent.iterdir())) == KEPT_CHECKS
    assert kept == refs[: KEPT_CHECKS - 1] and read_check(places) == CHECK == read_check(places, "last")
    other = replace(CHECK, plan=replace(FULL, ref="v1"))
    assert stale_reason(other, RECORD, "v1") == "" and "It was made for v1" in stale_reason(other, RECORD)


def changed(**members: Any) -> str:
    whole = asdict(CHECK)
    return json.dumps(whole | {"plan": whole["plan"] | members})


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{", "[" * 100_000, "{}", '{"checked_at": true}', '{"checked_at": NaN}', '{"checked_at": -1}',
        '{"checked_at": 1, "plan": []}', '{"checked_at": 1, "plan": {"name": "desk"}}', '{"checked_at": "1"}',
        changed(name="core"), changed(before="--help"), changed(after=""), changed(behind=-1), changed(held=0),
        changed(commits={}), changed(commits=["x"]), changed(commits=[{"id": "x"}]), changed(requirements=[1]),
        changed(effect="x" * 5000), changed(obstacles=["x"] * 1001), changed(free=1e300), changed(migrate=None),
        changed(need=10**400), changed(commits=[None]), changed(lost=[None]),
    ],
)  # fmt: skip
def test_what_is_no_check_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        check_of(text, "desk")


def test_how_far_it_is_behind_is_said_of_the_commit_that_serves() -> None:
    assert behind_of(None, RECORD) is None and behind_of(UpdateCheck(1.0, "x"), RECORD) is None
    assert (behind_of(CHECK, RECORD), stale_reason(CHECK, RECORD)) == (3, "")
    updated = replace(RECORD, commit=PLAN.after)
    assert behind_of(CHECK, updated) == 0 and "served; now 222222222222 does." in stale_reason(CHECK, updated)
    other = replace(RECORD, commit="7" * 40)
    assert behind_of(CHECK, other) is None
    moved = replace(RECORD, ref="v2")
    assert behind_of(CHECK, moved) is None
    assert stale_reason(CHECK, moved) == "It was made for the default branch; v2 is followed."
    failed = replace(CHECK, trouble="the server is away")
    assert behind_of(failed, RECORD) == 3 and "the server is away" in stale_reason(failed, RECORD)
    assert stale_reason(UpdateCheck(1.0, "x"), RECORD) == ""


def test_the_reply_about_a_plan() -> None:
    assert plan_reply(RECORD, None).checked_at is None
    reply = plan_reply(RECORD, CHECK)
    assert reply.plan is not None and reply.made_at is not None and reply.text[1] == "  refused as it is: no"
    assert (reply.plan.behind_by, reply.plan.downtime, reply.plan.downtime_of) == (3, 2.5, 1)
    assert reply.plan.commits[0].at is not None and reply.plan.lost[0].subject == "gone"
    assert plan_reply(RECORD, UpdateCheck(1.0, "away")).plan is None


async def test_what_is_due_is_looked_at_in_a_job(tmp_path: Path) -> None:
    own = layout({}, tmp_path, 1000, tmp_path)
    submitted: list[tuple[Any, ...]] = []

    class Engine:
        async def submit(self, *request: Any) -> None:
            submitted.append(request)
            if len(submitted) > 1:
                raise TooManyJobsError("too many jobs are running")

    wanted = True
    checks = DailyChecks(own, Engine(), lambda: wanted)  # type: ignore[arg-type]
    await checks.look()
    assert submitted == [], "nothing is installed"
    write_record(own.module("desk"), RECORD)
    await checks.look()
    ((kind, names, words, by, reason),) = submitted
    assert (kind, names, words) == ("module-plan", ("desk",), ("modules", "check", "--", "desk"))
    assert (by.name, reason) == ("helmd", "once a day")
    await checks.look()
    assert len(submitted) == 2, "what fails is tried again later"
    wanted = False
    await checks.look()
    assert len(submitted) == 2


def test_an_installed_module_is_known_to_be_up_to_date() -> None:
    check = check_of_installation(RECORD, DAYS)
    assert check_of(check_text(check), "desk") == check
    assert (behind_of(check, RECORD), stale_reason(check, RECORD)) == (0, "")


def test_what_is_due_was_looked_at_a_day_ago(tmp_path: Path) -> None:
    own = layout({}, tmp_path, 1000, tmp_path)
    places = own.module("desk")
    assert due_modules(own, DAYS) == ()
    write_record(places, RECORD)
    assert due_modules(own, DAYS + DAY - 1) == (), "it was installed less than a day ago"
    assert due_modules(own, DAYS + DAY) == ("desk",)
    write_check(places, UpdateCheck(DAYS + DAY, "the server is away"))
    assert due_modules(own, DAYS + 2 * DAY - 1) == ()
    assert due_modules(own, DAYS + 2 * DAY) == ("desk",)
    write_record(places, replace(RECORD, active="", commit=""))
    assert due_modules(own, DAYS + 9 * DAY) == ()
    places.record.write_text("{")
    assert due_modules(own, DAYS + 9 * DAY) == ()


def test_one_module_that_fails_keeps_no_other_from_being_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    full, locked = OSError(28, "No space left on device", "/m/desk"), LockedError("another change goes on")
    plans: dict[str, Any] = {"desk": full, "shelf": PLAN, "table": locked, "chair": PLAN}

    class Updates:
        def __init__(self, _: object, name: str) -> None:
            self._found = plans[name]

        def plan(self) -> Any:
            if isinstance(self._found, Exception):
                raise self._found
            return self._found

    monkeypatch.setattr("helmd.cli.module_update.updates_of", Updates)
    assert list(plan_each(Context(), list(plans))) == list(plans.items())
