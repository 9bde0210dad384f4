"""Every command in the README works as written, in the demo that the README's first command leaves."""

import re
import shlex

from tests.system.booted import TOP, Sandbox, run

BY_THE_SESSION = ("scripts/demo", "scripts/test", "scripts/demo --stop")
"""What brings this very session up, runs it, and ends it."""
ON_A_SERVER = ("scripts/build-deb", "sudo apt install", "sudo helmctl setup")
"""Run by scripts/demo and tests/system/test_package.py in their own sandboxes."""


def commands() -> list[str]:
    text = (TOP / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_every_command_of_the_readme(demo: Sandbox) -> None:
    asked = commands()
    assert len(asked) > 15
    wrong = []
    for command in asked:
        if command in BY_THE_SESSION or command.startswith(ON_A_SERVER):
            continue
        if command.startswith(("helmctl", "systemctl --user", "journalctl --user")):
            done = demo.shell(command, check=False)
        elif command.startswith("scripts/sandbox exec -- "):
            words = shlex.split(command)
            done = run([str(TOP / words[0]), words[1], "--name", demo.name, *words[2:]], timeout=120)
        elif command.startswith("curl "):
            done = demo.shell(f"{command} --fail", check=False)
        else:
            wrong.append(f"{command}: no test runs it")
            continue
        if done.code or not done.text.strip():
            wrong.append(f"{command}: exit code {done.code}\n{done.text}")
    assert not wrong, "\n".join(wrong)


def test_readme_shows_what_status_prints(demo: Sandbox) -> None:
    shown = re.search(r"^```text\n(.*?)^```", (TOP / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown
    now = demo.helmctl("status").out.splitlines()
    assert [line.split()[:2] for line in shown.group(1).splitlines()] == [line.split()[:2] for line in now]
    assert shown.group(1).splitlines()[0].split() == now[0].split()


def test_every_command_of_the_manual_exists(demo: Sandbox) -> None:
    manual = demo.shell("man -P cat helmctl 2>/dev/null || zcat /usr/share/man/man1/helmctl.1.gz").out
    for name in re.findall(r"^  ([a-z][a-z-]*)  ", demo.helmctl("--help").out, re.MULTILINE):
        words = r"\W+".join(["helmctl", *name.split("-")])
        assert re.search(rf"{words}\b", manual), name
        assert demo.helmctl(name, "--help").code == 0
