"""Checks of the doctor, and a run on a machine where nearly everything is missing."""

import json
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.files.key_pair import CertificateRequest, ensure_certificate, install_pair, renew_certificate
from helmd.model.backup.kept import LastRun
from helmd.model.config.settings import Settings
from helmd.model.errors import BusError, ConfigurationError, Fault
from helmd.model.identity.injected import Injected, LearnedPage, learned_text, source_of
from helmd.model.layout import Layout, layout
from helmd.model.logs.timestamps import timespan
from helmd.model.suite.service import Registry, Service
from helmd.model.units.diagnostics import (
    Finding,
    RateLimit,
    java_major,
    judge_certificate,
    judge_database_use,
    judge_environments,
    judge_java,
    judge_rate_limit,
    judge_space,
    ok,
)
from helmd.model.units.health import HealthVerdict
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.backup.kept import BackupKey, put_backup_key, record_last
from helmd.operations.configuration.effective import Effective
from helmd.operations.diagnostics import gateway as doctor_gateway
from helmd.operations.diagnostics import host as doctor_host
from helmd.operations.diagnostics import services as doctor_services
from helmd.operations.diagnostics import suite as doctor_suite
from helmd.operations.diagnostics.backups import backup_troubles, backups
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.diagnostics.databases import sqlite_files
from helmd.operations.diagnostics.doctor import CHECKS, DoctorCheck, examine
from helmd.operations.diagnostics.python import environment_of
from helmd.operations.monitoring.status import View
from helmd.systemd import log_limit, user_manager
from tests.waiting import WITHIN

SHARE = Path(__file__).resolve().parents[2]

DEFAULT = RateLimit(30, 10_000)
LIFTED = RateLimit(1, 10_000_000)
WRITE = "sudo /usr/libexec/hivematrix-helm/raise-log-limit 7"


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    made = layout({}, tmp_path, os.getuid(), SHARE)
    made.registry_directory.mkdir(parents=True)
    made.secrets.mkdir(mode=0o700)
    return made


def test_the_effective_rate_limit_is_judged() -> None:
    assert judge_rate_limit(DEFAULT, LIFTED, LIFTED, True, 7, WRITE).verdict == "ok"
    assert judge_rate_limit(RateLimit(0, 10_000), None, None, False, 7, WRITE).verdict == "ok"
    loaded = judge_rate_limit(DEFAULT, LIFTED, None, True, 7, WRITE)
    assert loaded.verdict == "warn"
    assert loaded.fix.startswith("sudo systemctl restart user@7.service")
    unread = judge_rate_limit(DEFAULT, None, None, True, 7, WRITE)
    assert unread.fix.startswith("sudo systemctl daemon-reload; sudo systemctl restart user@7.service")
    none = judge_rate_limit(DEFAULT, None, None, False, 7, WRITE)
    assert "above 10,000 in 30 s" in none.sentence
    assert none.fix == f"{WRITE}; sudo systemctl restart user@7.service (this restarts the suite)"
    assert judge_rate_limit(DEFAULT, LIFTED, RateLimit(1, 50), True, 7, WRITE).verdict == "warn"


def test_the_drop_in_disables_the_limit() -> None:
    set_to = dict(line.split("=", 1) for line in log_limit.DROP_IN.splitlines() if line.startswith("LogRate"))
    assert RateLimit(timespan(set_to["LogRateLimitIntervalSec"]), int(set_to["LogRateLimitBurst"])).ineffective


def test_configured_limit_reads_what_systemctl_shows() -> None:
    shown = {"LogRateLimitIntervalUSec": "1min 30s", "LogRateLimitBurst": "500"}
    assert user_manager.configured_limit(shown) == RateLimit(90, 500)
    assert user_manager.configured_limit({"LogRateLimitIntervalUSec": "0", "LogRateLimitBurst": "0"}) is None
    assert user_manager.journald_limit({}) == DEFAULT
    assert user_manager.journald_limit({"RateLimitIntervalSec": "0"}).ineffective


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("1min 30s", 90),
        ("30", 30),
        ("0", 0),
        ("500ms", 0.5),
        ("1h30min", 5400),
        ("1.5s", 1.5),
        ("2d", 172800),
    ],
)
def test_timespan(text: str, seconds: float) -> None:
    assert timespan(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1 fortnight", "-1s", "1s x"])
def test_invalid_timespan(text: str) -> None:
    with pytest.raises(ValueError, match="not a time span"):
        timespan(text)


@given(st.integers(0, 10**15), st.integers(1, 10**15))
def test_space_is_worse_the_less_is_free(free: int, total: int) -> None:
    verdict = judge_space("/", min(free, total), total).verdict
    share = min(free, total) / total
    assert verdict == ("bad" if share < 0.02 else "warn" if share < 0.1 else "ok")


def test_space_below_which_no_logs_are_stored() -> None:
    """Ten percent of a disk, or what is enough on a large one."""
    settings = Settings()
    tib = 1 << 40
    assert settings.min_free(1000) == 100 and settings.min_free(4 * tib) == 10 << 30
    assert judge_space("/", 50 << 30, 4 * tib, least=settings.min_free(4 * tib)).verdict == "bad"
    assert judge_space("/", 90 << 30, 4 * tib, least=settings.min_free(4 * tib)).verdict == "ok"
    found = judge_space("/", 99, 1000, least=settings.min_free(1000))
    assert found.verdict == "bad" and "no logs are stored" in found.sentence


def test_java() -> None:
    assert java_major('openjdk version "17.0.21.1" 2026-11-17\nOpenJDK ...') == 17
    assert java_major('java version "1.8.0_292"') == 8
    assert judge_java(None, 17).verdict == "bad"
    assert judge_java('openjdk version "11.0.2"', 17).verdict == "bad"
    assert judge_java('openjdk version "21" 2023-09-19', 17).verdict == "ok"
    assert judge_java("Segmentation fault", 17).verdict == "unknown"


@pytest.fixture
def virtual_environment(tmp_path: Path) -> Path:
    """As of Python 3.11, with a package and the program of 3.11 that it runs on."""
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/python3.11").touch()
    (tmp_path / "usr/python3").symlink_to("python3.11")
    made = tmp_path / "pyenv"
    for name in ("pip", "pip-23.0.1.dist-info", "setuptools", "flask"):
        (made / "lib/python3.11/site-packages" / name).mkdir(parents=True)
    (made / "bin").mkdir()
    (made / "bin/python3").symlink_to(tmp_path / "usr/python3")
    (made / "bin/python").symlink_to("python3")
    (made / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n")
    return made


def judged(made: Path, following: str | None = None) -> Finding:
    found = environment_of("codex", made / "bin/python")
    assert found is not None
    (finding,) = judge_environments([found], following)
    return finding


def test_environments_are_found_that_an_upgrade_of_python_leaves_behind(virtual_environment: Path) -> None:
    assert judged(virtual_environment).verdict == "ok"
    coming = judged(virtual_environment, "3.13")
    assert coming.verdict == "warn" and "next upgrade" in coming.sentence and "3.13" in coming.sentence
    usr = virtual_environment.parent / "usr"
    (usr / "python3.13").touch()
    (usr / "python3").unlink()
    (usr / "python3").symlink_to("python3.13")
    after = judged(virtual_environment)
    assert after.verdict == "bad" and "codex" in after.sentence and str(virtual_environment) in after.sentence
    assert "3.11" in after.sentence and "3.13" in after.sentence
    assert f"-m venv --clear {virtual_environment}" in after.fix and "helmctl restart codex" in after.fix
    # Nothing that the service imports is lost: it uses the packages of the system.
    (virtual_environment / "lib/python3.11/site-packages/flask").rmdir()
    assert judged(virtual_environment).verdict == "ok"


def test_an_environment_without_its_interpreter_is_found(virtual_environment: Path) -> None:
    (virtual_environment / "bin/python3").unlink()
    (virtual_environment / "bin/python3").symlink_to("/usr/bin/python3.1")
    gone = judged(virtual_environment)
    assert gone.verdict == "bad" and "not installed any more" in gone.sentence


@pytest.mark.parametrize("settings", ["", "version\n", "version = three\n", "\0\xff"])
def test_what_is_no_virtual_environment_is_none(virtual_environment: Path, settings: str) -> None:
    (virtual_environment / "pyvenv.cfg").write_text(settings)
    assert environment_of("codex", virtual_environment / "bin/python") is None
    assert environment_of("codex", Path("/usr/bin/python3")) is None


def test_hostile_environments_do_not_stop_doctor(virtual_environment: Path) -> None:
    (virtual_environment / "bin/python3").unlink()
    (virtual_environment / "bin/python3").symlink_to("python")
    assert judged(virtual_environment).verdict == "bad"
    (virtual_environment / "pyvenv.cfg").unlink()
    os.mkfifo(virtual_environment / "pyvenv.cfg")
    assert environment_of("codex", virtual_environment / "bin/python") is None


def test_bare_machine_before_set_up(tmp_path: Path) -> None:
    """No bus, no login manager, no suite: every check has a finding, none raises, and the fix is set-up."""
    code = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from helmd.cli.doctor import doctor_command; from helmd.cli.context import Context\n"
        "sys.exit(doctor_command.main([], standalone_mode=False, obj=Context()))"
    )
    nowhere = {"HOME": str(tmp_path), "PATH": "/nowhere", "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    notified = subprocess.run(
        [sys.executable, "-c", code, str(SHARE)], env=nowhere, capture_output=True, text=True, timeout=120, check=False
    )
    assert notified.stderr == ""
    assert notified.returncode == 1
    assert "helmctl setup" in notified.stdout
    for check in CHECKS:
        assert check.after_set_up or f" {check.name} " in notified.stdout, check.name
    assert not list(tmp_path.iterdir())


def test_a_failed_check_is_reported_and_the_next_one_is_made(place: Layout) -> None:
    problems = [
        ConfigurationError([Fault("f", 1, "", "bad")]),
        BusError("no bus"),
        subprocess.TimeoutExpired(["slow"], 3),
        subprocess.CalledProcessError(1, ["false"], stderr="first\nlast words\n"),
        PermissionError(13, "Permission denied"),
        ValueError("no number"),
        KeyError("systemd-journal"),
    ]

    def failing(problem: Exception) -> DoctorCheck:
        def examine_it(context: DoctorContext) -> list[Finding]:
            raise problem

        return DoctorCheck(type(problem).__name__, examine_it)

    checks = (*map(failing, problems), DoctorCheck("last", lambda context: [ok("fine")]))
    results = list(examine(DoctorContext(place), checks))
    assert [result.finding.verdict for result in results] == ["unknown"] * len(problems) + ["ok"]
    assert results[3].finding.sentence == "could not be checked: false failed: last words"


def test_all_configuration_errors_are_reported(place: Layout) -> None:
    place.registry_file.write_text('[services.a]\nport = "x"\ncolour = 1\n')
    found = doctor_suite.configuration(DoctorContext(place))
    assert [finding.verdict for finding in found] == ["bad", "bad"]
    assert "services.toml:2" in found[0].sentence
    place.registry_file.write_text('[services.a]\nport = 5999\npath = "nowhere"\n')
    assert "does not exist" in doctor_suite.configuration(DoctorContext(place))[0].sentence


def test_what_why_says_of_backups(place: Layout) -> None:
    """A run that failed and a key that can't be read; nothing of what only ought to be better."""
    (place.home / "a").mkdir()
    place.registry_file.write_text('[services.a]\ntype = "command"\nstart_command = ["/bin/true"]\npath = "~/a"\n')
    context = DoctorContext(place)
    assert backups(context)[0].verdict == "warn" and backup_troubles(context) == [], "no key has been made"
    put_backup_key(place, BackupKey("age1x", "k"), "AGE-SECRET-KEY-1")
    assert backup_troubles(context) == []
    place.last_backup.parent.mkdir(parents=True)
    record_last(place, LastRun(1.0, False, sentence="the disk is full"))
    assert backup_troubles(context) == ["Backups: the last backup failed: the disk is full. Run: helmctl backup create"]
    place.backup_key.chmod(0o644)
    (said,) = backup_troubles(context)
    assert said.startswith("Backups: ") and said.endswith(f"only this account can read. chmod 600 {place.backup_key}")


def test_secrets_readable_by_others_are_reported(place: Layout) -> None:
    assert doctor_suite.secrets(DoctorContext(place))[0].verdict == "ok"
    open_to_all, closed, link = (place.secrets / name for name in ("core.env", "nexus.env", "codex.env"))
    open_to_all.write_text("A=b")
    open_to_all.chmod(0o644)
    closed.write_text("A=b")
    closed.chmod(0o600)
    link.symlink_to(closed)
    place.settings_file.write_text('[store]\ndatabase = "postgresql://helm:secret@db/helm"\n')
    place.settings_file.chmod(0o640)
    found = doctor_suite.secrets(DoctorContext(place))
    assert {finding.fix for finding in found} == {
        f"chmod 600 {open_to_all}",
        f"chmod 600 {place.settings_file}",
        f"ls -lL {link}",
    }
    assert "secret@" not in str(found)


def test_secrets_that_systemd_does_not_read_as_meant_are_reported(place: Layout) -> None:
    for name, text in {"core": "export A=hidden\n", "nexus": "A='hidden\n", "codex": "A=1\n"}.items():
        (place.secrets / f"{name}.env").write_text(text)
        (place.secrets / f"{name}.env").chmod(0o600)
    found = doctor_suite.secrets(DoctorContext(place))
    assert [(each.verdict, Path(each.sentence.split(":")[0]).name) for each in found] == [
        ("warn", "core.env"),
        ("bad", "nexus.env"),
    ]
    assert "hidden" not in str(found)


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://db/helm?password=secret", "postgresql://db/helm?%70assword=secret", "postgresql://:secret@db/"],
)
def test_a_password_in_any_form_makes_a_configuration_file_secret(place: Layout, dsn: str) -> None:
    """Also one that is commented out, in any of the files, and the password file that one names."""
    named = place.config / "pgpass"
    named.write_text("*:*:*:helm:secret")
    files = [place.settings_file, place.registry_file, place.registry_directory / "a.toml"]
    place.registry_directory.mkdir(exist_ok=True)
    for path in files:
        path.write_text(f'#database = "{dsn}"\n')
    place.settings_file.write_text(f'#database = "{dsn}"\n#or = "postgresql://db/helm?passfile={named}"\n')
    for path in (*files, named):
        path.chmod(0o644)
    found = doctor_suite.secrets(DoctorContext(place))
    assert {finding.fix for finding in found} == {f"chmod 600 {path}" for path in (*files, named)}
    assert "secret" not in str([finding.sentence for finding in found])


def test_services_that_can_act_as_the_account_are_named(place: Layout) -> None:
    services = [
        f'[services.{name}]\ntype = "command"\nstart_command = ["sleep"]\nhardening = "{level}"\n'
        for name, level in (("one", "basic"), ("two", "strict"), ("three", "off"), ("four", "default"))
    ]
    place.registry_file.write_text("".join(services))
    place.state.mkdir(parents=True, exist_ok=True)
    (place.state / "host.json").write_text('{"systemd": 252, "user_namespaces": true}')
    (found,) = doctor_suite.isolation(DoctorContext(place))
    assert found.verdict == "warn" and found.sentence.endswith(": one, three")
    (place.state / "host.json").write_text('{"systemd": 252, "user_namespaces": false}')
    (found,) = doctor_suite.isolation(DoctorContext(place))
    assert set(found.sentence.rpartition(": ")[2].split(", ")) == {"one", "two", "three", "four"}
    assert "user namespaces" in found.fix


@pytest.mark.parametrize("place_of", ["path", "writable_paths"])
def test_a_service_whose_directories_show_secrets_can_act_as_the_account(place: Layout, place_of: str) -> None:
    """However strict its sandbox is: through its own directory, by whatever name."""
    (place.home / "link").symlink_to(place.config)
    for shown in ("~/", "~/link", "~/.ssh"):
        value = shown if place_of == "path" else [shown]
        text = f'[services.one]\ntype = "command"\nstart_command = ["sleep"]\n{place_of} = {json.dumps(value)}\n'
        place.registry_file.write_text(text)
        place.state.mkdir(parents=True, exist_ok=True)
        (place.state / "host.json").write_text('{"systemd": 252, "user_namespaces": true}')
        (found,) = doctor_suite.isolation(DoctorContext(place))
        assert found.verdict == "warn" and "one can act as the account" in found.sentence, shown


def test_a_foreign_process_on_a_port_is_named(place: Layout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        place.registry_file.write_text(f'[services.a]\ntype = "command"\nstart_command = ["sleep"]\nport = {port}\n')
        found = [finding for finding in doctor_suite.ports(DoctorContext(place)) if str(port) in finding.sentence]
    assert found[0].verdict == "bad"
    assert f"pid {os.getpid()}" in found[0].sentence
    place.registry_file.write_text('[services.a]\ntype = "command"\nstart_command = ["sleep"]\nport = 1\n')
    privileged = [finding for finding in doctor_suite.ports(DoctorContext(place)) if "port 1:" in finding.sentence]
    assert "ip_unprivileged_port_start=1 " in privileged[0].fix


def test_each_file_system_is_checked_once(place: Layout) -> None:
    found = doctor_host.disk(DoctorContext(place))
    devices = {path.stat().st_dev for path in (place.home, Path("/var/log"), Path("/run"))}
    assert 1 <= len([finding for finding in found if "disk space" in finding.sentence]) <= len(devices)


def test_the_drop_in_is_written_for_one_account_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_manager, "_DROP_INS", (tmp_path,))
    assert not user_manager.drop_in_present(7)
    log_limit.raise_limit(7, tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.conf")] == [
        "user@7.service.d/50-hivematrix-helm.conf"
    ]
    assert user_manager.drop_in_present(7) and not user_manager.drop_in_present(8)
    assert log_limit.drop_in_file(7, tmp_path).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("arguments", [[], ["hive"], ["7", "-1"], ["../7"]])
def test_the_program_takes_uids_only(arguments: list[str]) -> None:
    assert log_limit.main(arguments) == 2


class OneStatus:
    """A manager all of whose units are active and enabled, with one status."""

    def __init__(self, status: str) -> None:
        self._status = status

    def facts(self, unit: str) -> UnitFacts:
        return UnitFacts(unit, "loaded", "active", "running", file_state="enabled", status_text=self._status)


@pytest.mark.parametrize(
    ("status", "formats"),
    [
        ("stored up to now; formats disabled because they take too long: formats.mine, mentions.user_id", 2),
        ("all services are healthy; formats disabled because they take too long: formats.mine; other", 1),
        ("stored up to now", 0),
    ],
)
def test_disabled_formats_are_found_in_the_daemons_status(
    place: Layout, monkeypatch: pytest.MonkeyPatch, status: str, formats: int
) -> None:
    monkeypatch.setattr(DoctorContext, "manager", OneStatus(status))
    monkeypatch.setattr(doctor_suite, "_sockets", lambda _: [])
    found = [finding for finding in doctor_suite.helm(DoctorContext(place)) if "too long" in finding.sentence]
    assert len(found) == (3 if formats else 0)
    for finding in found:
        assert finding.verdict == "warn"
        named = finding.sentence.partition("too long: ")[2]
        assert named == ", ".join(["formats.mine", "mentions.user_id"][:formats])


def test_an_unusable_key_of_the_journal_is_found(place: Layout) -> None:
    assert doctor_suite.secrets(DoctorContext(place)) == [ok("only this account can read them")]
    place.journal_keys.write_text("1700000000 not-a-key\n")
    place.journal_keys.chmod(0o600)
    (finding,) = doctor_suite.secrets(DoctorContext(place))
    assert finding.verdict == "bad"
    assert "invalid line 1" in finding.sentence


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("begins", "ends", "verdict", "word"),
    [
        (-30, 300, "ok", "valid until"),
        (-30, 13, "warn", "valid until"),
        (-30, -1, "bad", "expired"),
        (2, 300, "bad", "not valid before"),
    ],
)
def test_certificates(begins: int, ends: int, verdict: str, word: str) -> None:
    found = judge_certificate("portal", NOON + timedelta(days=begins), NOON + timedelta(days=ends), NOON)
    assert found.verdict == verdict and word in found.sentence
    assert verdict == "ok" or "helmctl restart portal" in found.fix


def view(name: str, word: str, *, needs: tuple[str, ...] = (), active: bool = False) -> View:
    service = Service(name=name, type="command", depends_on=needs)
    facts = UnitFacts(f"hivematrix-{name}.service", "loaded", "active" if active else "inactive")
    return View(service, facts, HealthVerdict("healthy" if word == "healthy" else "unhealthy", "a reason"), word)


@pytest.mark.parametrize(
    ("views", "verdicts", "words"),
    [
        ([view("a", "healthy", active=True)], ["ok"], "all are healthy"),
        ([view("a", "failed"), view("b", "healthy", active=True)], ["bad"], "helmctl restart a"),
        ([view("a", "flapping", active=True)], ["bad"], "a is flapping"),
        ([view("a", "unhealthy", active=True)], ["bad"], "a reason"),
        ([view("a", "degraded", active=True)], ["warn"], "helmctl why a"),
        ([view("a", "stopped"), view("b", "healthy", active=True)], ["warn"], "helmctl start a"),
        ([view("a", "stopped"), view("b", "healthy", needs=("a",), active=True)], ["warn", "bad"], "need it: b"),
        ([view("a", "stopped"), view("b", "stopped", needs=("a",))], ["warn"], "helmctl up"),
    ],
)
def test_services_that_do_not_work_are_found(
    views: list[View], verdicts: list[str], words: str, place: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = DoctorContext(place)
    context.effective = Effective(Settings(), Registry({each.service.name: each.service for each in views}))
    context.manager = Mock()
    monkeypatch.setattr(doctor_services, "observe_services", lambda *_: views)
    found = doctor_services.services(context)
    assert [finding.verdict for finding in found] == verdicts
    assert any(words in finding.sentence + finding.fix for finding in found), found


@pytest.mark.parametrize(
    ("sessions", "tables", "files", "said"),
    [
        (1, False, ["a.db"], ""),
        (0, True, [], ""),
        (0, False, [], "no session in it, and it is empty"),
        (0, False, ["/c/codex.db"], "and its directory has the SQLite database /c/codex.db"),
        (0, True, ["/c/codex.db"], "it has no session in it, and its directory has"),
    ],
)
def test_a_database_that_is_not_used(sessions: int, tables: bool, files: list[str], said: str) -> None:
    finding = judge_database_use("codex", sessions, tables, files)
    assert (finding is None) == (not said)
    assert finding is None or said in finding.sentence


def test_sqlite_files_are_known_by_their_content(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "real.db") as made:
        made.execute("CREATE TABLE a (b)")
    made.close()
    (tmp_path / "instance").mkdir()
    (tmp_path / "real.db").rename(tmp_path / "instance/codex.db")
    (tmp_path / "notes.db").write_text("text")
    (tmp_path / "linked.db").symlink_to("instance/codex.db")
    os.mkfifo(tmp_path / "pipe.db")
    (tmp_path / "env").mkdir()
    (tmp_path / "env/pyvenv.cfg").write_text("")
    (tmp_path / "env/cache.db").write_bytes((tmp_path / "instance/codex.db").read_bytes())
    assert list(sqlite_files(tmp_path)) == [tmp_path / "instance/codex.db"]


@contextmanager
def showing(certificate: Path, key: Path, address: str = "127.0.0.1") -> Iterator[int]:
    """Yield a server that shows a certificate once; its port."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, server.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(doctor_services, "_HANDSHAKE_SECONDS", WITHIN)
            yield listener.getsockname()[1]
        thread.join()


def running(place: Layout, service: Service) -> DoctorContext:
    """Return what doctor sees when SERVICE runs, alone."""
    context = DoctorContext(place)
    context.effective = Effective(Settings(), Registry({service.name: service}))
    context.manager = Mock()
    context.manager.facts.return_value = UnitFacts(f"hivematrix-{service.name}.service", "loaded", "active", "running")
    return context


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "portal.example.invalid"])
def test_certificates_are_looked_at_where_a_service_listens(host: str, place: Layout, tmp_path: Path) -> None:
    wanted = CertificateRequest("portal", (), NOON, NOON + timedelta(days=36_500))
    pair = tmp_path / "portal.crt", tmp_path / "portal.key"
    ensure_certificate(*pair, wanted)
    with showing(*pair, "::1" if host == "[::1]" else "127.0.0.1") as port:
        service = Service("portal", type="command", url=f"https://{host}:{port}", port=port)
        (found,) = doctor_services.certificates(running(place, service))
    assert "portal" in found.sentence and "valid until" in found.sentence, found


def test_a_certificate_that_was_replaced_is_shown_until_the_gateway_restarts(place: Layout, tmp_path: Path) -> None:
    """A renewed one, and one that the admin gave; but not one that the gateway has from elsewhere."""
    checkout = tmp_path / "nexus"
    checkout.mkdir()
    pair = checkout / "certs/nexus.crt", checkout / "certs/nexus.key"
    wanted = CertificateRequest("nexus", (), NOON, NOON + timedelta(days=36_500))
    ensure_certificate(*pair, wanted)
    own = tmp_path / "own.crt", tmp_path / "own.key"
    ensure_certificate(*own, wanted)

    def said(change: Callable[[], object]) -> str:
        kept = tmp_path / "shown.crt", tmp_path / "shown.key"
        for now, before in zip(pair, kept, strict=True):
            before.write_bytes(now.read_bytes())
        with showing(*kept) as port:
            change()
            service = Service("nexus", url=f"https://127.0.0.1:{port}", port=port, path=str(checkout))
            (found,) = doctor_services.certificates(running(place, service))
        assert found.fix == ("helmctl restart nexus" if found.verdict == "warn" else "")
        return found.sentence

    valid = f"valid until {NOON + timedelta(days=36_500):%Y-%m-%d}"
    assert said(lambda: None) == f"the certificate of nexus is {valid}"
    assert "nexus still shows a certificate that was replaced" in said(
        lambda: renew_certificate(*pair, wanted, NOON + timedelta(days=36_501))
    )
    assert "nexus still shows a certificate that was replaced" in said(
        lambda: install_pair(*pair, *(file.read_bytes() for file in own))
    )

    def other() -> None:
        for name in ("nexus.crt", "nexus.key", "nexus.crt.before", "nexus.key.before"):
            (checkout / "certs" / name).unlink()
        ensure_certificate(*pair, wanted)

    assert said(other) == f"the certificate of nexus is {valid}"


def test_what_the_gateway_adds_to_pages(place: Layout) -> None:
    """Unknown, just started, learned with what does not work, and why nothing was learned."""
    service = Service("nexus", url="https://localhost:8443", port=8443)
    context = running(place, service)

    def said(page: LearnedPage | None, started: float = 0.0, invocation: str = "two") -> list[Finding]:
        place.gateway_page.parent.mkdir(parents=True, exist_ok=True)
        if page is not None:
            place.gateway_page.write_text(learned_text(page))
        facts = UnitFacts("hivematrix-nexus.service", "loaded", "active", "running", invocation=invocation)
        context.manager.facts.return_value = replace(facts, active_since=started)  # type: ignore[attr-defined]
        return doctor_gateway.pages(context)

    (unseen,) = said(None)
    assert unseen.verdict == "warn" and "has not looked at one since" in unseen.sentence
    known = LearnedPage("two", 0.0, 1_795_889_000.0, Injected((source_of("1"),), (), ("/a.js",), ("the script x",)))
    assert [each.verdict for each in said(known)] == ["ok", "warn"]
    assert said(known)[0].sentence == (
        "2 scripts that the gateway adds may run on Helm's pages (learned 2026-11-28 18:03 UTC)"
    )
    assert said(known)[1].sentence.endswith("on those of Helm: the script x")
    assert said(known, invocation="three")[0].verdict == "warn"
    assert said(known, time.time() - 5, "three") == [
        ok("helmd is about to look at what the gateway, which has just started, adds to pages")
    ]
    (failed,) = said(LearnedPage("two", 5.0, trouble="Keycloak refused it", hint="Run: helmctl keycloak setup"))
    assert failed.verdict == "warn" and failed.sentence.endswith("Keycloak refused it")
    assert failed.fix == "Run: helmctl keycloak setup"
    context.effective = Effective(Settings(), Registry({}))
    assert said(known) == [ok("the suite has no gateway")]
