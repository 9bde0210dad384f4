"""Backups of the demo with the real Keycloak: by the timer's unit and the API, and archives that are not right."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.booted import Sandbox, fetch_file, superuser_sql, until

SECRETS = "/home/hive/.config/hivematrix/secrets"


@pytest.fixture(scope="module")
def saved(demo: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """An archive of the demo, and what opens it, which is not in the demo any more. The demo is left as it was."""
    place = tmp_path_factory.mktemp("saved")
    (before,) = [each for each in findings(demo) if each["check"] == "backups"]
    assert before["verdict"] == "warn" and "no backups are made" in before["sentence"]
    try:
        shown = demo.helmctl("backup", "key").out
        assert f"What opens them: {SECRETS}/backup-identity.txt" in shown
        key = fetch_file(demo, f"{SECRETS}/backup-identity.txt", place / "key")
        demo("rm", f"{SECRETS}/backup-identity.txt")
        # As the timer does.
        demo("systemctl", "--user", "start", "helmd-backup.service")
        (made,) = json.loads(demo.helmctl("backup", "list", "--json").out)
        yield fetch_file(demo, made["path"], place / Path(made["path"]).name), key
    finally:
        demo.shell(f"rm -rf {SECRETS}/backup* .local/state/hivematrix/backups .local/state/hivematrix/last-backup.json")
        demo.helmctl("apply")
        assert "helmd-backup" not in demo.shell("systemctl --user list-timers --all").out


def findings(box: Sandbox) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(box.helmctl("doctor", "--json", check=False).out)["findings"]
    return found


def test_a_backup_is_made_by_the_timer_s_unit_and_by_a_job(demo: Sandbox, saved: tuple[Path, Path]) -> None:
    """Each has all of the suite, and is nobody else's to read. Nothing is left of its trial."""
    archive, key = saved
    (finding,) = [each for each in findings(demo) if each["check"] == "backups"]
    assert finding["verdict"] == "ok" and archive.name in finding["sentence"]
    assert "helmd-backup.timer" in demo.shell("systemctl --user list-timers").out
    # helmctl why names one that fails, with what to do, until one succeeds.
    demo("chmod", "500", ".local/state/hivematrix/backups")
    failed = demo.helmctl("backup", "create", check=False)
    demo("chmod", "700", ".local/state/hivematrix/backups")
    assert failed.code == 1 and "Permission denied" in failed.err
    why = " ".join(demo.helmctl("why").out.split())
    assert "Backups: the last backup failed: " in why and "Run: helmctl backup create" in why
    curl = ("curl", "-s", "--unix-socket", "/run/user/1000/hivematrix/helm.sock")
    body = ("-X", "POST", "-H", "Content-Type: application/json", "-d", '{"reason": "a test"}')
    job = json.loads(demo(*curl, *body, "http://helm/api/backups").out)["job"]
    until(lambda: job_state(demo, job["id"]) == "succeeded", 120)
    listed = json.loads(demo(*curl, "http://helm/api/backups").out)
    assert "Backups: " not in demo.helmctl("why").out
    assert len(listed["backups"]) == 2 and listed["last"]["succeeded"]
    assert listed["recipient"].startswith("age1") and listed["backups"][1]["name"] == archive.name
    modes = demo.shell("stat -c %a .local/state/hivematrix/backups .local/state/hivematrix/backups/*").out.split()
    assert modes == ["700", "600", "600"]
    assert not demo.shell("ls -A .local/state/hivematrix | grep -E 'backup-check|partial'", check=False).out.replace(
        ".backup-check-suite.lock\n", ""
    )
    demo.script("copy", str(archive), "/home/hive/archive")
    said = json.loads(
        demo.helmctl("verify", "archive", "--identity", "-", "--quick", "--json", stdin=key.read_text()).out
    )
    assert said["signed"] and set(said["databases"]) >= {"keycloak", "codex_db", "ledger_db"}
    assert said["services"]["core"] == "whole" and said["services"]["keycloak"] == "shared" and not said["left_out"]


def job_state(box: Sandbox, job: str) -> str:
    state: str = json.loads(box.helmctl("jobs", "show", job, "--json", check=False).out)["state"]
    return state


def test_an_archive_that_is_not_right_changes_nothing(demo: Sandbox, saved: tuple[Path, Path], tmp_path: Path) -> None:
    """A flipped bit, a missing end, another key, another's archive; and a good one, while there is a suite."""
    archive, key = saved
    good = archive.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    other = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    digest = "find .config/hivematrix suite -type f ! -name '*.pyc' | sort | xargs sha256sum | sha256sum"
    before = demo.shell(digest).out, demo.status()["core"]["pid"], superuser_sql(demo, "SELECT oid FROM pg_database")
    for content, identity, said in (
        (bytes(flipped), key.read_text(), "the archive is damaged: a chunk of it was changed"),
        (good[:-1], key.read_text(), "the archive is damaged: a chunk of it was changed"),
        (good[: len(good) // 2], key.read_text(), "the archive"),
        (good, other, "the key does not open this archive"),
        (good, key.read_text().replace("authentication key: ", "authentication key: x"), "is not signed with the key"),
        (good, key.read_text(), "this account has a suite already"),
    ):
        (tmp_path / "archive").write_bytes(content)
        demo.script("copy", str(tmp_path / "archive"), "/home/hive/archive")
        done = demo("helmctl", "restore", "archive", "--identity", "-", stdin=identity, check=False)
        assert done.code == 1 and said in done.err, done.text
    assert before == (
        demo.shell(digest).out,
        demo.status()["core"]["pid"],
        superuser_sql(demo, "SELECT oid FROM pg_database"),
    )
    demo.shell("rm archive")
