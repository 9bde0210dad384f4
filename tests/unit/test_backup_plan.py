"""Which backups are kept, when one is overdue, what a restore would do, and what a manifest may say."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.backup.kept import (
    PARTIAL,
    BackupFacts,
    LastRun,
    StoredBackup,
    archive_name,
    expired,
    judge_backups,
    made_at,
)
from helmd.model.backup.manifest import (
    FORMAT,
    ArchivePart,
    BackupError,
    DatabaseFacts,
    EnvironmentRef,
    Manifest,
    ServiceRef,
    link_fault,
    manifest_text,
    part_of_member,
    read_manifest,
)
from helmd.model.backup.restoring import RestoreConditions, plan_restore
from helmd.systemd.calendar import calendar_interval

DAY = 86400.0
NOW = 1_790_000_000.0
MANIFEST = Manifest(
    FORMAT, "1.2.0", "desk", "hive", "/home/hive", NOW, 17, "hivematrix",
    (ArchivePart("configuration", 3, 1 << 20, "0" * 64), ArchivePart("databases/suite/codex", 1, 1 << 20, "1" * 64)),
    (DatabaseFacts("suite", "codex", NOW, {"public.note": 3}, "2" * 64),),
    (
        ServiceRef("keycloak", "keycloak", "keycloak-26.4.0", 8080, "shared"),
        ServiceRef("core", "python", "~/core", 5000, "whole", environment=EnvironmentRef("pyenv", "3.13", True, ())),
        ServiceRef("codex", "python", "~/codex", 5010, "shared", "https://example.org/codex", "a" * 40),
        ServiceRef("ticker", "command", "~/ticker", 0, "nothing"),
    ),
    (),
)  # fmt: skip
HERE = RestoreConditions("1.2.0", 17, 10 << 30)


def stored(*ages: float) -> list[StoredBackup]:
    return [StoredBackup(archive_name(NOW - age * DAY), NOW - age * DAY, 1) for age in ages]


@pytest.mark.parametrize(
    ("ages", "keep", "days", "gone"),
    [
        ((), 7, 30, []),
        ((0, 1, 2), 7, 30, []),
        ((0, 1, 2), 2, 30, [2]),
        ((0, 1, 40), 7, 30, [40]),
        ((40, 50), 7, 30, [50]),
        ((3, 0, 1, 2), 1, 30, [1, 2, 3]),
    ],
)
def test_backups_that_are_not_kept(ages: tuple[float, ...], keep: int, days: int, gone: list[float]) -> None:
    found = expired(stored(*ages), keep, days, NOW)
    assert [round((NOW - backup.made_at) / DAY) for backup in found] == gone


@given(st.sets(st.integers(0, 1000), max_size=30), st.integers(1, 10), st.integers(1, 400))
def test_the_newest_one_is_always_kept(ages: set[int], keep: int, days: int) -> None:
    every = stored(*ages)
    left = {backup.name for backup in every} - {backup.name for backup in expired(every, keep, days, NOW)}
    assert len(left) <= keep
    assert not every or max(every, key=lambda each: each.made_at).name in left


def test_names_of_archives() -> None:
    assert made_at(archive_name(NOW)) == NOW
    assert PARTIAL.match(f".{archive_name(NOW)}.partial")
    for other in (
        "hivematrix-20261399T000000Z.tar.gz.age",
        "x",
        f"{archive_name(NOW)}.partial",
        f"a{archive_name(NOW)}",
    ):
        assert made_at(other) is None and not PARTIAL.match(other)


GOOD_BACKUPS = BackupFacts(NOW - DAY / 2, 10 << 20, 5 << 20, 1 << 30, None, DAY, True, "", NOW - 9 * DAY, "a", "/b")


@pytest.mark.parametrize(
    ("changed", "verdicts", "said"),
    [
        ({}, ["ok"], "a is the newest; all together take 10 MB"),
        ({"newest_at": NOW - 3 * DAY}, ["bad"], "the newest backup is 3.0 days old"),
        ({"newest_at": NOW - 10 * DAY, "interval": 7 * DAY}, ["ok"], ""),
        ({"newest_at": NOW - 10 * DAY, "interval": None, "scheduled": False}, ["ok"], ""),
        ({"newest_at": None, "free": None}, ["bad"], "no backup has been made yet"),
        ({"newest_at": None, "free": None, "key_made_at": NOW}, ["ok"], "the first backup is made by the schedule"),
        ({"newest_at": None, "free": None, "key_made_at": NOW, "scheduled": False}, ["bad"], "no backup has been made"),
        (
            {"last": LastRun(NOW, False, sentence="the disk is full")},
            ["bad"],
            "the last backup failed: the disk is full",
        ),
        ({"last": LastRun(NOW, True, "a")}, ["ok"], ""),
        ({"free": 6 << 20}, ["warn"], "/b has 6 MB free, and a backup takes 5 MB"),
        ({"identity_here": "/secrets/k"}, ["warn"], "would be lost with it: /secrets/k"),
    ],
)
def test_what_doctor_says(changed: dict[str, Any], verdicts: list[str], said: str) -> None:
    found = judge_backups(replace(GOOD_BACKUPS, **changed), NOW)
    assert [finding.verdict for finding in found] == verdicts
    assert said in found[0].sentence and (found[0].verdict == "ok" or found[0].fix)


def test_the_interval_of_a_schedule() -> None:
    assert calendar_interval("daily") == DAY
    assert calendar_interval("Sun 03:00") == 7 * DAY
    assert calendar_interval("nonsense") is None


def test_what_a_restore_does() -> None:
    planned = plan_restore(MANIFEST, HERE, replace=False)
    assert planned.faults == ()
    assert planned.steps == (
        "restore configuration and secrets of hive on desk",
        "keycloak: unpack the release, and restore what its admin has added",
        "core: restore ~/core as it was, make its virtual environment again with 0 packages",
        "codex: clone https://example.org/codex at aaaaaaaaaaaa, restore its state",
        "ticker: nothing; its directory ~/ticker is not in the archive",
        "set up the account: PostgreSQL, units, Helm",
        "restore the database codex: 1 table, 3 rows; and compare them",
        "start the suite",
    )


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        ({"helm_version": "1.1.9"}, "Helm 1.2.0 has made the archive, and this is 1.1.9"),
        ({"postgresql": 15}, "PostgreSQL 15 is the newest here: sudo apt install postgresql-17"),
        ({"postgresql": 0}, "PostgreSQL is not installed"),
        ({"free": 1 << 30}, "1,027 MB are needed, and 1,024 MB are free"),
        ({"living": "there is a suite"}, "there is a suite: to replace it"),
        ({"held_ports": {5000: "pid 7"}}, "port 5000, which core needs, is taken by pid 7"),
        ({"faults": ("/opt can't be written",)}, "/opt can't be written"),
    ],
)
def test_what_keeps_a_restore_from_being_done(found: dict[str, Any], fault: str) -> None:
    planned = plan_restore(MANIFEST, replace(HERE, **found), replace=False)
    assert len(planned.faults) == 1 and fault in planned.faults[0]


def test_later_versions_restore_what_earlier_ones_made() -> None:
    later = replace(HERE, helm_version="1.10.0", postgresql=18)
    assert plan_restore(MANIFEST, later, replace=False).faults == ()


def test_a_suite_that_is_there_is_replaced_only_if_asked() -> None:
    living = replace(HERE, living="there is a suite", held_ports={5000: "core"})
    planned = plan_restore(MANIFEST, living, replace=True)
    assert planned.faults == () and "backup of the suite that is here" in planned.steps[0]
    # One that was begun is not a suite to be protected.
    planned = plan_restore(MANIFEST, replace(living, unfinished=True, held_ports={}), replace=False)
    assert planned.faults == () and "interrupted" in planned.steps[0]


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert read_manifest(manifest_text(MANIFEST)) == MANIFEST


@pytest.mark.parametrize(
    "change",
    [
        {"format": "1"},
        {"format": FORMAT + 1},
        {"created_at": "now"},
        {"parts": [{"name": "a"}]},
        {"parts": [{"name": "../x", "members": 1, "size": 1, "sha256": ""}]},
        {"parts": [{"name": "state", "members": 1, "size": 1, "sha256": ""}] * 2, "databases": []},
        {"databases": [{"cluster": "other", "name": "x", "taken_at": 0, "tables": {}, "schema_sha256": ""}]},
        {"databases": [{"cluster": "suite", "name": "x", "taken_at": 0, "tables": {"a": "b"}, "schema_sha256": ""}]},
        {"services": [{"name": "a", "type": "b", "path": "c", "port": True, "saved": "whole"}]},
        {"services": [{"name": "a", "type": "b", "path": "c", "port": 1, "saved": "stolen"}]},
        {"left_out": "text"},
        {"host": None},
    ],
)
def test_a_manifest_that_is_not_one_is_refused(change: dict[str, Any]) -> None:
    text = json.dumps({**json.loads(manifest_text(MANIFEST)), **change}).encode()
    with pytest.raises(BackupError):
        read_manifest(text)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b"{" * 100_000, b"\xff"])
def test_text_that_is_not_a_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(BackupError):
        read_manifest(text)


@given(
    st.text(alphabet="a./\0~", max_size=12),
    st.sampled_from(["configuration/", "services/a/", "databases/suite/a/", ""]),
)
def test_no_member_is_outside_its_part(name: str, above: str) -> None:
    if (found := part_of_member(above + name)) is not None:
        part, rest = found
        assert f"{part}/{rest}" == above + name
        assert rest and not any(word in ("", ".", "..") or "\0" in word for word in rest.split("/"))


@pytest.mark.parametrize(
    ("name", "target", "stays"),
    [
        ("a", "b", True),
        ("a/b", "../c", True),
        ("a/b", "../../c", False),
        ("a", "..", False),
        ("a/b/c", "../x/../../y", True),
        ("a", "b/../../c", False),
        ("a", "/etc", False),
        ("a", "", False),
    ],
)
def test_where_a_link_may_lead(name: str, target: str, stays: bool) -> None:
    assert (link_fault(name, target) == "") is stays
