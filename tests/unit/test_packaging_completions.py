"""The completion scripts, run in the shells that a machine always has."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a directory with the completion scripts where the package has them, and helmctl in bin/."""
    subprocess.run([ROOT / "packaging/completions/generate.py", tmp_path], check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/helmctl").symlink_to(ROOT / "helmctl.py")
    return tmp_path


def complete(installed: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of WORDS."""
    script = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_helmctl_completion helmctl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    place = installed / "usr/share/bash-completion/completions/helmctl"
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", str(place), *words],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{installed / 'bin'}:{os.environ['PATH']}", "HOME": str(installed)},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands(installed: Path) -> None:
    assert {"start", "status"} <= set(complete(installed, "helmctl", "sta"))
    assert complete(installed, "helmctl", "doct") == ["doctor"]


def test_bash_completes_options(installed: Path) -> None:
    assert "--output" in complete(installed, "helmctl", "status", "--ou")


def test_zsh_script_completes_when_it_is_loaded_from_the_function_path(installed: Path) -> None:
    script = (installed / "usr/share/zsh/vendor-completions/_helmctl").read_text()
    assert script.startswith("#compdef helmctl\n")
    assert script.rstrip().endswith("compdef _helmctl_completion helmctl\nfi")
    assert "loadautofunc ]]; then\n" in script


def test_fish_script_is_for_helmctl(installed: Path) -> None:
    script = (installed / "usr/share/fish/vendor_completions.d/helmctl.fish").read_text()
    assert "complete --no-files --command helmctl" in script
