"""Control characters from unit files and log lines do not reach the terminal of whoever runs helmctl."""

import re
import shlex
import unicodedata
from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox, until

NAME = "terminal"
UNIT = f"/home/hive/.local/share/systemd/user/hivematrix-{NAME}.service"
ATTACK = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e"
"""Sets the title, clears the screen, changes the colour (C1) and the direction of text."""
ESCAPED = r"\x1b]0;title\x07\x1b[2J\x9b31m\u202e"
SERVICE = f"""\
[services.{NAME}]
type = "command"
path = "~/suite"
start_command = ['/usr/bin/python3', '-u', '-c', 'import time; print("line {ESCAPED}"); time.sleep(1000)']
"""
COMMANDS = {
    "status": "status",
    "show": f"show {NAME}",
    "cat": f"cat {NAME}",
    "why": f"why {NAME}",
    "logs": f"logs -n 50 {NAME}",
    "logs verbose": f"logs -n 50 -o verbose {NAME}",
    "logs of the journal": f"logs --journal -n 50 {NAME}",
    "doctor": "doctor",
    "deps": f"deps {NAME}",
    "diff": "diff",
}
SHOWS_IT = {"show", "cat", "logs", "logs verbose", "logs of the journal", "diff"}
"""Commands whose output contains the description or the line, so that there is something to escape."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def attacked(demo: Sandbox) -> Iterator[Sandbox]:
    """The sandbox with a unit that has control characters in its description and prints some."""
    demo.register(NAME, SERVICE)
    try:
        demo("sed", "-i", f"s/^Description=.*/Description=A service {ATTACK}/", UNIT)
        demo("systemctl", "--user", "daemon-reload")
        description = demo("systemctl", "--user", "show", "-P", "Description", f"hivematrix-{NAME}").out
        assert ATTACK in description, "systemd accepts the description"
        demo("systemctl", "--user", "start", f"hivematrix-{NAME}")
        stored = f"SELECT count(*) FROM log_entries WHERE service_name = '{NAME}' AND message LIKE 'line%'"
        until(lambda: int(demo.sql(stored)), 30)
        yield demo
    finally:
        demo.unregister()


def controls(text: str) -> set[str]:
    """Control and format characters in TEXT, except line ends and tabs."""
    return {character for character in text if unicodedata.category(character) in ("Cc", "Cf")} - set("\n\r\t")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_control_character_is_printed(attacked: Sandbox, command: str) -> None:
    done = attacked.helmctl(*COMMANDS[command].split(), check=False)
    assert controls(done.text) == set(), ascii(done.text)
    assert (ESCAPED in done.text) == (command in SHOWS_IT), ascii(done.text)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_gets_colours_only(attacked: Sandbox, command: str) -> None:
    inner = shlex.quote(f"PAGER=cat helmctl {COMMANDS[command]}")
    done = attacked.shell(f"TERM=xterm COLUMNS=500 script -qec {inner} /dev/null", check=False)
    assert controls(COLOUR.sub("", done.text)) == set(), ascii(done.text)
