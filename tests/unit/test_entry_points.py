"""The programs that units execute: today's under packaging/libexec, and the paths that older installed units name."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
LIBEXEC = TOP / "packaging/libexec"
ISOLATED = ("/usr/bin/python3", "-I", "-S")

OLDER = {
    "probe": (*ISOLATED, f"{TOP}/helmd/health/probe.py"),
    "prestart": (*ISOLATED, f"{TOP}/helmd/systemd/prestart.py"),
    "unlock-cluster": (*ISOLATED, f"{TOP}/helmd/postgres/unlock.py"),
    "prepare-keycloak": (*ISOLATED, f"{TOP}/helmd/keycloak/prepare.py"),
    "provision-cluster": (
        "/usr/bin/env", f"PYTHONPATH={TOP}", "/usr/bin/python3", "-s", "-m", "helmd.postgres.provision"
    ),
}  # fmt: skip
"""How units that version 1.0.0 rendered call the same programs. They are rendered again only by ``helmctl apply``."""


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, cwd="/", timeout=60, check=False)


@pytest.mark.parametrize("path", sorted(LIBEXEC.iterdir()), ids=lambda path: path.name)
def test_each_is_an_executable_file(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) & 0o111 == 0o111
    assert path.read_text().startswith(("#!/usr/bin/python3 -I", "#!/bin/sh\n"))


@pytest.mark.parametrize("name", OLDER)
@pytest.mark.parametrize("older", [False, True], ids=["libexec", "older path"])
def test_each_starts_under_today_s_and_the_older_name(name: str, older: bool, tmp_path: Path) -> None:
    """Each gets far enough to show that its imports and its arguments are right."""
    command = OLDER[name] if older else (str(LIBEXEC / name),)
    if name == "probe":
        done = run(*command, "check=process", "within=1", "settle=0", f"timeout={1}")
        assert (done.returncode, done.stderr) == (0, "")
    elif name == "prestart":
        source = tmp_path / "source"
        source.write_text("{}")
        done = run(*command, f"discovery={source}", f"directory={tmp_path}")
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "services.json").read_text() == "{}"
    elif name == "unlock-cluster":
        assert run(*command, str(tmp_path)).returncode == 0
    elif name == "prepare-keycloak":
        done = run(*command, str(tmp_path), "/nonexistent/java")
        assert done.returncode != 0 and "ImportError" not in done.stderr and "ModuleNotFound" not in done.stderr
    else:
        done = run(*command, f"directory={tmp_path}", f"socket={tmp_path}", "port=1", f"account={os.getuid()}", "x")
        assert done.returncode == 1 and "PostgreSQL can't be reached" in done.stderr


@pytest.mark.parametrize("name", ["helmd", "helmd-journal"])
def test_daemons_refuse_a_broken_configuration_in_a_sentence(name: str, tmp_path: Path) -> None:
    config = tmp_path / "hivematrix"
    config.mkdir()
    (config / "helm.toml").write_text("[http\n")
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    with subprocess.Popen(
        [LIBEXEC / name], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as started:
        assert started.stdout is not None
        try:
            assert f"{config}/helm.toml:1" in started.stdout.readline()
        finally:
            started.kill()
