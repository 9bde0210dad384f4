"""scripts/apt.conf, with which scripts call apt-get."""

import fcntl
import re
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_apt_get_waits_for_another_process(tmp_path: Path) -> None:
    (tmp_path / "lists/partial").mkdir(parents=True)
    (tmp_path / "status").touch()
    places = {"State::lists": "lists", "State::status": "status", "Cache": ".", "Etc::parts": "none", "Log": "."}
    command = ["apt-get", *(f"-oDir::{name}={tmp_path / place}" for name, place in places.items()), "install"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    with (tmp_path / "lock-frontend").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        at_once = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert at_once.returncode and "lock-frontend" in at_once.stderr, at_once.stderr
        waiting = subprocess.Popen(command, env=environment | {"APT_CONFIG": str(SCRIPTS / "apt.conf")})
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(1)
            fcntl.lockf(lock, fcntl.LOCK_UN)
            assert waiting.wait(60) == 0
        finally:
            waiting.kill()


def test_scripts_that_call_apt_get_use_it() -> None:
    shell = [path for path in SCRIPTS.iterdir() if path.is_file() and path.suffix != ".conf"]
    calling = [path for path in shell if re.search(r"^[^#]*apt-get", path.read_text(), re.M)]
    assert len(calling) >= 4
    assert [path.name for path in calling if "export APT_CONFIG=" not in path.read_text()] == []
