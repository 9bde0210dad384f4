"""Units on disk: whose they are, their mode, the lock, and the suite as it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helmd.files.durable import write_atomically
from helmd.files.lock import locked
from helmd.model.errors import LockedError
from helmd.model.layout import Layout, layout
from helmd.model.suite.composition import dependencies
from helmd.model.suite.dependencies import find_cycle
from helmd.operations.configuration.installed_suite import installed_suite
from helmd.systemd.installed import UNIT_HEADER, installed_mode, is_ours, mode_of, read_unit

TOP = Path(__file__).resolve().parents[2]


def unit(name: str, *after: str, mode: str = "production") -> str:
    lines = "".join(f"Wants=hivematrix-{other}.service\nAfter=hivematrix-{other}.service\n" for other in after)
    return f"{UNIT_HEADER} from services.toml\n[Unit]\n{lines}[X-HiveMatrix]\nService={name}\nMode={mode}\n"


@pytest.fixture
def account(tmp_path: Path) -> Layout:
    made = layout({}, tmp_path, os.getuid(), TOP)
    made.units.mkdir(parents=True)
    return made


def install(account: Layout, name: str, *after: str) -> None:
    account.unit_file(f"hivematrix-{name}.service").write_text(unit(name, *after))


def test_whose_unit_it_is() -> None:
    assert is_ours(unit("core"))
    assert not is_ours("") and not is_ours("[Unit]\n" + unit("core")) and not is_ours("# mine\n" + UNIT_HEADER)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (unit("core"), "production"),
        (unit("core", mode="development"), "development"),
        (unit("core", mode="Production"), None),
        ("[Service]\nMode=production\n", None),
        ("[Service]\nEnvironment=Mode=production\n[X-HiveMatrix]\nMode=development\n", "development"),
        ("", None),
        (None, None),
    ],
)
def test_the_mode_is_read_from_helms_own_section(text: str | None, mode: str | None) -> None:
    assert mode_of(text) == mode


def test_the_mode_of_an_installed_service(account: Layout) -> None:
    assert installed_mode(account, "core") is None
    install(account, "core")
    assert installed_mode(account, "core") == "production"


def test_a_unit_that_is_no_text_is_nobodys(account: Layout) -> None:
    path = account.unit_file("hivematrix-core.service")
    assert read_unit(path) is None
    path.write_bytes(b"\xff\xfe\0")
    text = read_unit(path)
    assert text is not None and not is_ours(text)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep/unit"
    write_atomically(path, "one\n")
    assert path.read_text() == "one\n" and path.stat().st_mode & 0o777 == 0o644
    target = tmp_path / "victim"
    target.write_text("precious")
    path.unlink()
    path.symlink_to(target)
    write_atomically(path, "two\n", 0o600)
    assert not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600 and target.read_text() == "precious"
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "deep", "x")
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["deep", "unit", "victim"], "nothing half-written"


WHAT = "units are being applied"


def test_only_one_applies_at_a_time(account: Layout) -> None:
    holds = (
        "from pathlib import Path; from helmd.files.lock import locked\n"
        f"with locked(Path({str(account.apply_lock)!r}), {WHAT!r}):\n  print('held', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holds], cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout
    assert other.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match="another process"), locked(account.apply_lock, WHAT):
        pass
    other.kill()
    other.communicate()
    with locked(account.apply_lock, WHAT):
        with pytest.raises(LockedError), locked(account.apply_lock, WHAT):
            pass
    with locked(account.apply_lock, WHAT):
        pass


def test_the_suite_as_it_is_installed(account: Layout) -> None:
    install(account, "postgres")
    install(account, "core", "postgres", "gone")
    install(account, "nexus", "core")
    account.unit_file("hivematrix-theirs.service").write_text("[Service]\nExecStart=/bin/true\n")
    account.unit_file("hivematrix-UPPER.service").write_text(unit("UPPER"))
    account.unit_file("helmd-postgres.service").write_text(unit("helm"))
    suite = installed_suite(account)
    assert dependencies(suite) == {"core": ("postgres",), "nexus": ("core",), "postgres": ()}
    assert suite["core"].health.check == "process" and suite["core"].port is None


def test_units_of_different_times_can_need_each_other(account: Layout) -> None:
    """One applied before, one after the registry turned their order round: no order is right, so none is kept."""
    install(account, "one", "two")
    install(account, "two", "three")
    install(account, "three", "one")
    install(account, "four", "one")
    suite = installed_suite(account)
    assert set(suite.names) == {"one", "two", "three", "four"}
    assert find_cycle(dependencies(suite)) == ()
    assert suite["four"].depends_on == ("one",)
