"""Limits that the host can't enforce, and programs that can't be found: said before anything runs."""

import os
from pathlib import Path

import pytest

from helmd.model.config.toml_tables import ConfigSource
from helmd.model.layout import layout
from helmd.model.suite.limits import unenforced
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry
from helmd.operations.configuration.load import path_faults
from helmd.systemd import host


def suite(text: str) -> Registry:
    return read_registry([ConfigSource("mine", text)], {})


TEXT = """
[services.a]
type = "command"
start_command = ["/bin/sleep", "9"]
limits = { memory_max = "64M", memory_high = "32M", tasks = 5 }
[services.b]
type = "command"
start_command = ["/bin/sleep", "9"]
limits = { memory_max = "64M", cpu_percent = 20, open_files = 64 }
[services.c]
type = "external"
url = "http://c.example"
limits = { memory_max = "64M" }
"""


def test_limits_without_a_controller() -> None:
    found = {each.controller: each.settings for each in unenforced(suite(TEXT), {"memory", "pids"})}
    assert found == {"cpu": ("limits.cpu_percent of b",)}
    found = {each.controller: each.settings for each in unenforced(suite(TEXT), ())}
    assert found["memory"] == ("limits.memory_high of a", "limits.memory_max of a", "limits.memory_max of b")
    assert found["pids"] == ("limits.tasks of a",)
    assert not list(unenforced(suite(TEXT), {"memory", "pids", "cpu", "io"}))


def test_what_the_user_manager_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ROOTS", (str(tmp_path), f"{tmp_path}/unified"))
    assert host.delegated_controllers("/user.slice/user@7.service") == frozenset()
    group = tmp_path / "unified/user.slice/user@7.service"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text("memory pids\n")
    assert host.delegated_controllers("/user.slice/user@7.service") == {"memory", "pids"}


def faults(tmp_path: Path, settings: str) -> list[str]:
    text = f'[services.w]\ntype = "command"\npath = "{tmp_path}"\n{settings}\n'
    made = layout({}, tmp_path, os.getuid(), tmp_path)
    return [f"{fault.where}: {fault.sentence}" for fault in path_faults(suite(text), made)]


def test_what_only_a_shell_knows(tmp_path: Path) -> None:
    """Command lines that were copied from a Procfile or a script."""
    (fault,) = faults(tmp_path, 'start_command = "WORKERS=4 sh run.sh"')
    assert fault.endswith("; no shell runs it: set variables such as WORKERS by environment")
    (fault,) = faults(tmp_path, 'start_command = "cd /srv && sh run.sh"')
    assert fault.endswith('no shell runs it: write ["sh", "-c", "..."] with exec before the program, or a script')


def test_a_program_that_is_not_in_path(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, 'start_command = ["worker.sh", "-v"]')
    assert fault.startswith("services.w.start_command: program 'worker.sh' is in none of the directories in PATH (/usr")
    (tmp_path / "worker.sh").write_text("#!/bin/sh\n")
    (tmp_path / "worker.sh").chmod(0o755)
    (fault,) = faults(tmp_path, 'start_command = ["worker.sh"]')
    assert fault.endswith(f"to run {tmp_path}/worker.sh, write './worker.sh'")
    assert not faults(tmp_path, 'start_command = ["./worker.sh"]')
    assert not faults(tmp_path, f'start_command = ["worker.sh"]\nenvironment.PATH = "/nowhere:{tmp_path}"')
    assert not faults(tmp_path, 'start_command = ["sh", "worker.sh"]')
    modes = 'start_command = ["sh"]\nproduction.start_command = ["worker.sh"]'
    (fault,) = faults(tmp_path, modes)
    assert fault.startswith("services.w.production.start_command: program 'worker.sh'")
    assert not faults(tmp_path, f'{modes}\nproduction.environment.PATH = "{tmp_path}"')
    (tmp_path / "worker.sh").chmod(0o644)
    (fault,) = faults(tmp_path, f'start_command = ["worker.sh"]\nenvironment.PATH = "{tmp_path}"')
    assert "'worker.sh' is in none" in fault


def test_a_program_below_the_home_directory(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, 'start_command = ["~/bin/run"]')
    assert fault.endswith(f"program {tmp_path}/bin/run does not exist")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/run").write_text("#!/bin/sh\n")
    (fault,) = faults(tmp_path, 'start_command = ["~/bin/run"]')
    assert fault.endswith(f"bin/run is not executable; if it is to run: chmod +x {tmp_path}/bin/run")
    (tmp_path / "bin/run").chmod(0o755)
    assert not faults(
        tmp_path, 'start_command = ["~/bin/run"]\npre_start = ["~/bin/run"]\nreload_command = ["~/bin/run"]'
    )
    (tmp_path / "bin/run").write_text("#!/bin/sh\r\n")
    (fault,) = faults(tmp_path, 'start_command = ["sh"]\npre_start = ["~/bin/run"]')
    assert fault.startswith("services.w.pre_start: script") and "line ends of Windows" in fault


def test_a_program_of_the_virtual_environment(tmp_path: Path) -> None:
    (tmp_path / "pyenv/bin").mkdir(parents=True)
    (tmp_path / "pyenv/bin/celery").write_text("#!/bin/sh\n")
    (tmp_path / "pyenv/bin/celery").chmod(0o755)
    text = f'[services.w]\nport = 6000\npath = "{tmp_path}"\nstart_command = ["celery", "worker"]\n'
    assert not path_faults(suite(text), layout({}, tmp_path, os.getuid(), tmp_path))
