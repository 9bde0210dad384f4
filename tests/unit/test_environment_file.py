"""Environment files: parsed like systemd and a shell do, and completed without changing existing lines."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.files.environment_file import (
    ensure_secrets,
    environment_line,
    misread_lines,
    parse_environment_file,
    read_environment_file,
)
from helmd.keycloak.launch import BOOTSTRAP_SECRETS, SECRETS
from helmd.model.errors import ConfigurationError, DeniedError

EVERY_SECRET = {**SECRETS, **BOOTSTRAP_SECRETS}


def test_missing_values_are_generated_once(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "keycloak.env"
    made = ensure_secrets(path, EVERY_SECRET)
    assert set(made) == set(EVERY_SECRET) and len(made["KC_DB_PASSWORD"]) >= 40
    assert made["KC_DB_PASSWORD"] != made["KC_BOOTSTRAP_ADMIN_PASSWORD"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.stat()
    assert ensure_secrets(path, EVERY_SECRET) == made == read_environment_file(path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_lines_are_kept_and_values_of_the_admin_win(tmp_path: Path) -> None:
    path = tmp_path / "keycloak.env"
    theirs = b"# mine\xff\r\n; also mine\nKC_DB_PASSWORD='chosen by me'\nOTHER=1\n"
    theirs += b"KC_BOOTSTRAP_ADMIN_PASSWORD=\nLAST=no newline"
    path.write_bytes(theirs)
    path.chmod(0o644)
    made = ensure_secrets(path, EVERY_SECRET)
    assert made["KC_DB_PASSWORD"] == "chosen by me"
    assert path.read_bytes().startswith(theirs + b"\n")
    assert read_environment_file(path)["LAST"] == "no newline"
    assert read_environment_file(path)["KC_BOOTSTRAP_ADMIN_PASSWORD"] == made["KC_BOOTSTRAP_ADMIN_PASSWORD"] != ""
    path.chmod(0o644)
    ensure_secrets(path, EVERY_SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_links_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("link", "pipe", "directory"):
        with pytest.raises(DeniedError):
            ensure_secrets(tmp_path / name, EVERY_SECRET)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("text", ["A='open", 'A="open\n', "A=1\nB=x\\"])
def test_nothing_is_appended_after_an_unterminated_quote(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.env"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        ensure_secrets(path, EVERY_SECRET)
    assert str(path) in str(caught.value.faults[0])
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=plain", "plain"),
        ("  A  =  spaced out  \n", "spaced out"),
        ('A="double \\" \\\\ \\$ \\n"', 'double " \\ $ \\n'),
        ("A='single \\ \"'", 'single \\ "'),
        ("A=con\\\ntinued", "continued"),
        ('A="two\nlines"', "two\nlines"),
        ("A='ab'\"cd\"ef", "abcdef"),
        ("A=1\nA=2", "2"),
        ("#A=1\n;A=2\nA=", ""),
        ("A=trailing\\ ", "trailing "),
    ],
)
def test_syntax_of_systemd(text: str, value: str) -> None:
    assert parse_environment_file(text, "f")["A"] == value


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=60))
def test_any_value_round_trips(value: str) -> None:
    assert parse_environment_file(f"B=1\n{environment_line('A', value)}\nC=2\n", "f") == {
        "A": value,
        "B": "1",
        "C": "2",
    }


@pytest.mark.parametrize("value", ["plain", "with space ", "q\"u'o`t$e\\s", "$(id) `id` ${HOME}", "two\nlines", "ü€"])
def test_a_shell_reads_the_line_the_same(tmp_path: Path, value: str) -> None:
    (tmp_path / "f").write_text(environment_line("A", value) + "\n")
    said = subprocess.run(
        ["/bin/sh", "-c", '. ./f; printf %s "$A"'], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert said.decode() == value


def test_unsupported_values_are_refused() -> None:
    for key, value in (("A B", "x"), ("", "x"), ("A\n", "x"), ("A", "x\0")):
        with pytest.raises(ValueError, match="can't be set"):
            environment_line(key, value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("export A=secret\nB=1\n", ["x.env:1: systemd ignores the line; write NAME=value, without export"]),
        ("B=1\n MY-KEY = secret", ["x.env:2: systemd ignores the line; write NAME=value"]),
        (
            "A=secret # for the mail server\n",
            ["x.env:1: the value of A has the comment in it; give that a line of its own"],
        ),
        ("A=secret #\n", ["x.env:1: the value of A has the comment in it; give that a line of its own"]),
        ("A=se#cret\nB=a #b\nC='a # b'\nD=\"a # b\"\n# E=1 # 2\n;export F=1\n", []),
        ("A='one\nexport B=2\nthree # four'\n", []),
        (
            "\ufeffA=secret\nB=1\n",
            ["x.env:1: the file begins with a byte order mark, by which systemd ignores its first line"],
        ),
        ("export\nno equals sign here\n", []),
    ],
)
def test_lines_that_others_read_otherwise(text: str, expected: list[str]) -> None:
    found = list(misread_lines(text, "x.env"))
    assert found == expected and "secret" not in str(found)
