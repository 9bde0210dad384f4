"""What is known of updates of a module without asking its repository: the plan that was made when it was last looked.

The file is hostile until it was parsed, as the record of a module is.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

from helmd.model.modules.plan import UpdatePlan
from helmd.model.modules.record import ModuleRecord
from helmd.model.modules.source import COMMIT

MAX_CHECK = 1 << 20
"""Bytes of the file that are read."""
_MAX_TEXT, _MAX_LIST = 4000, 1000


@dataclass(frozen=True, slots=True)
class UpdateCheck:
    """What was found when it was last looked whether there is an update. Times are seconds since the epoch."""

    checked_at: float
    trouble: str = ""
    """Why nothing newer is known than the plan, as a sentence; empty if that is of then."""
    made_at: float = 0.0
    """When the plan was made; 0 without one."""
    plan: UpdatePlan | None = None


def check_of_installation(record: ModuleRecord, now: float) -> UpdateCheck:
    """Return what is known once the module of RECORD was installed: its repository was fetched for that."""
    plan = UpdatePlan(
        name=record.name, before=record.commit, after=record.commit, ref=record.ref, behind=0, commits=(), lost=(),
        requirements=(), migrate="", migrate_before="", database="", shared_paths=(), effect="", held=record.held,
        held_reason=record.held_reason, obstacles=(), need=0, free=0, downtimes=(),
    )  # fmt: skip
    return UpdateCheck(now, "", now, plan)


def behind_of(check: UpdateCheck | None, record: ModuleRecord) -> int | None:
    """Return how many commits the module of RECORD is behind, or None where that is not known."""
    plan = check.plan if check is not None else None
    if plan is None or plan.ref != record.ref:
        return None
    if record.commit == plan.after:
        return 0
    return plan.behind if record.commit == plan.before else None


def stale_reason(check: UpdateCheck, record: ModuleRecord, ref: str = "") -> str:
    """Return why the plan of CHECK is not that of an update now, as a sentence; empty if it is, as far as is known.

    The update is to REF; empty for what the module follows.
    """
    plan = check.plan
    if plan is None:
        return ""
    if plan.ref != (ref or record.ref):
        return f"It was made for {plan.ref or 'the default branch'}; {record.ref or 'the default branch'} is followed."
    if plan.before != record.commit:
        return f"It was made when commit {plan.before[:12]} served; now {record.commit[:12]} does."
    if check.trouble:
        return f"It could not be made again: {check.trouble}."
    return ""


def check_text(check: UpdateCheck) -> str:
    """Return the content of the file."""
    return json.dumps(asdict(check), indent=1) + "\n"


def check_of(text: str, name: str) -> UpdateCheck:
    """Return the check of the module NAME that TEXT is. Raises ValueError for anything else."""
    try:
        check: UpdateCheck = _made(UpdateCheck, json.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if check.plan is not None and check.plan.name != name:
        raise ValueError("it is of another module")
    return check


def _made(kind: Any, value: object) -> Any:
    """Return a value of KIND, a class whose fields are all known. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError("it has no object where one should be")
    hints = get_type_hints(kind)
    given = {each.name: _member(hints[each.name], value[each.name]) for each in fields(kind) if each.name in value}
    try:
        made = kind(**given)
    except TypeError:
        raise ValueError("it is not complete") from None
    commits = [getattr(made, name) for name in ("id", "before", "after") if hasattr(made, name)]
    if not all(COMMIT.match(each) for each in commits):
        raise ValueError("it has a commit that is not one")
    return made


def _member(kind: Any, value: object) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or len(value) > _MAX_LIST:
            raise ValueError("it has no list where one should be")
        return tuple(_member(get_args(kind)[0], each) for each in value)
    if kind in (int, float):
        # Compared first: neither NaN, infinity, nor an integer that no float can be is in that range.
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e18:
            raise ValueError("it has a number that can't be")
        return kind(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError("it has neither true nor false where that should be")
        return value
    if kind is str:
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise ValueError("it has no text where that should be")
        return value
    if value is None and type(None) in get_args(kind):
        return None
    return _made(next((each for each in get_args(kind) if each is not type(None)), kind), value)
