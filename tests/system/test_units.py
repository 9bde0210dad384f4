"""The units themselves: systemd's verdict, values that arrive as written, modes, discovery, and what an admin does."""

import json
import re
import shlex
from typing import Any

import pytest

from tests.system.booted import Sandbox, until

UNITS = "/home/hive/.local/share/systemd/user"
ADMIN_UNITS = "/home/hive/.config/systemd/user"

# Renders every unit of the suite in one mode, as "helmctl apply" would, into a directory.
RENDER = """
import os, pathlib, sys
sys.path.insert(0, "/usr/share/hivematrix-helm")
from helmd.cli.context import Context
from helmd.operations.configuration.apply import rendered
context = Context()
modes = dict.fromkeys(context.suite.names, sys.argv[1])
for name, text in rendered(context.suite, context.layout, context.settings, modes).items():
    pathlib.Path(sys.argv[2], name).write_text(text)
"""

# Prints what `helmctl status` shows of each service by its facts in brief, if it isn't what all of its facts say.
BRIEF = """
import sys
sys.path.insert(0, "/usr/share/hivematrix-helm")
from helmd.systemd.brief_facts import facts_in_brief
from helmd.systemd.bus import Manager
manager = Manager()
units = [*manager.units_like("hivematrix-*.service"), "hivematrix-nobody.service"]
brief = facts_in_brief(manager, units)
SHOWN = (
    "load_state active_state sub_state fragment drop_ins need_reload main_pid restarts active_since changed_at "
    "started_at ended_at exit_code control_group oneshot timer next_run running_since exists active job"
).split()
def shown(facts):
    return [getattr(facts, name) for name in SHOWN]
print(len(units), sum(facts.sub_state == "running" and not facts.invocation for facts in brief.values()))
print([unit for unit in units if shown(brief[unit]) != shown(manager.facts(unit))])
"""


def test_facts_in_brief_are_those_of_all_properties(demo: Sandbox) -> None:
    def read() -> list[str]:
        return demo.shell(f"python3 -c {shlex.quote(BRIEF)}").out.splitlines()

    units, in_brief = map(int, read()[0].split())
    assert units >= in_brief >= 3
    # One that changes between the two readings is not the same.
    until(lambda: read()[1] == "[]", 60)
    # One that runs on without its file.
    file = f"{UNITS}/hivematrix-gone.service"
    reload = "systemctl --user daemon-reload"
    demo.shell(f"printf '[Service]\nExecStart=sleep 300\n' > {file}; {reload}; systemctl --user start hivematrix-gone")
    try:
        demo.shell(f"rm {file}; {reload}")
        until(lambda: read()[1] == "[]", 60)
    finally:
        demo.shell("systemctl --user stop hivematrix-gone")
    # One whose files have changed since they were loaded.
    drop_in = f"{ADMIN_UNITS}/hivematrix-core.service.d/later.conf"
    demo.shell(f"mkdir -p $(dirname {drop_in}); printf '[Service]\nNice=1\n' > {drop_in}")
    try:
        until(lambda: read()[1] == "[]", 60)
        assert "core: its unit changed on disk" in demo.helmctl("status", "core").text
    finally:
        demo.shell(f"rm {drop_in}; rmdir $(dirname {drop_in}); {reload}")
    assert "changed on disk" not in demo.helmctl("status", "core").text


def test_systemd_verifies_what_is_installed(demo: Sandbox) -> None:
    done = demo.shell(f"ls {UNITS}/*.service | wc -l; systemd-analyze --user verify --man=no {UNITS}/*.service 2>&1")
    assert done.out.strip() == "9", "the suite's eight and the store's PostgreSQL, and not a word about them"


@pytest.mark.parametrize("mode", ["development", "production"])
def test_systemd_verifies_every_kind_in_both_modes(demo: Sandbox, mode: str) -> None:
    directory = f"/tmp/rendered-{mode}"
    demo.shell(f"mkdir {directory} && python3 -c {shlex.quote(RENDER)} {mode} {directory}")
    try:
        counted = demo.shell(f"cd {directory} && grep -l '^Mode={mode}$' hivematrix-*.service | wc -l").out.strip()
        assert counted == "8"
        assert demo.shell(f"systemd-analyze --user verify --man=no {directory}/*.service 2>&1").out == ""
        broken = demo.shell(
            f"cd {directory} && sed -i s/^KillMode=mixed/KillMode=mixture/ hivematrix-core.service && "
            "systemd-analyze --user verify --man=no ./hivematrix-core.service 2>&1",
            check=False,
        )
        assert "mixture" in broken.text, "it is able to complain"
    finally:
        demo.shell(f"rm -r {directory}")


NASTY = "%h %n %% $HOME ${HOME} $$ \"quotes\" 'single' \\ back\\slash \\n ; # ünïcode 日本 🐝 trailing\\"

SHOW = """#!/usr/bin/python3
import json, os, pathlib, sys, time
found = {"argv": sys.argv[1:], "environ": dict(os.environ), "cwd": os.getcwd()}
pathlib.Path("seen.json.new").write_text(json.dumps(found))
os.rename("seen.json.new", "seen.json")
time.sleep(1e6)
"""


@pytest.mark.parametrize("streams", ["split", "merged"])
def test_values_arrive_as_they_were_written(box: Sandbox, streams: str) -> None:
    """Through TOML, the template, systemd's quoting, specifiers and variables, to the program."""
    directory = f"/home/hive/na sty {streams}"
    box("mkdir", "-p", f"{directory}/bin")
    box("tee", f"{directory}/bin/show", stdin=SHOW)
    box("chmod", "+x", f"{directory}/bin/show")
    environment = {"NASTY": NASTY, "TABS": "\ta\tb\t", "EMPTY": "", "BLANKS": "  two  ", "LONG": "ä%$" * 10_000}
    words = [NASTY, "", " ", ";", "-", "%", "$", "$HOME", "--x=%i", '"', "'", "\\", "a b", *NASTY.split(" ")]
    table = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in environment.items())
    box.register(
        f"nasty-{streams}",
        f'[services.nasty-{streams}]\ntype = "command"\npath = {json.dumps(directory)}\nstreams = "{streams}"\n'
        f"description = {json.dumps(NASTY, ensure_ascii=False)}\nenvironment = {{ {table} }}\n"
        f"start_command = {json.dumps(['bin/show', *words], ensure_ascii=False)}\n",
    )
    box.helmctl("start", f"nasty-{streams}")
    seen: dict[str, Any] = json.loads(box("cat", f"{directory}/seen.json").out)
    assert seen["argv"] == words
    assert {name: seen["environ"].get(name) for name in environment} == environment
    assert seen["cwd"] == directory
    shown = box("systemctl", "--user", "show", "-p", "Description", "--value", f"hivematrix-nasty-{streams}").out
    assert shown.rstrip("\n").rstrip() == f"HiveMatrix nasty-{streams}: {NASTY}"
    box.helmctl("stop", f"nasty-{streams}")
    box("rm", "-r", directory)


def environment_of(box: Sandbox, service: str) -> dict[str, str]:
    """What the running process really has."""
    pid = box.status(service)[service]["pid"]
    # A namespace of its own keeps the account's other processes from reading it, so root does.
    words = box("cat", f"/proc/{pid}/environ", root=True).out.split("\0")
    return dict(word.split("=", 1) for word in words if word)


def test_up_switches_what_runs_in_another_mode(box: Sandbox) -> None:
    def modes() -> set[str]:
        return {entry["mode"] for entry in box.status().values()}

    before = modes()
    try:
        done = box.helmctl("up", "--mode", "production", timeout=400)
        assert "✓ core: restarted" in done.err and "✓ core: already running" in done.err
        assert before == {"development"} and modes() == {"production"}
    finally:
        box.helmctl("up", "--mode", "development", timeout=400)
    assert modes() == before


def test_modes_really_differ_and_persist(box: Sandbox) -> None:
    unit = f"{UNITS}/hivematrix-core.service"
    try:
        assert environment_of(box, "core")["FLASK_ENV"] == "development"
        refused = box.helmctl("start", "core", "--mode", "production", check=False)
        assert refused.code == 2
        assert "core runs in development mode" in refused.err
        assert "helmctl restart core --mode production" in refused.err
        assert "Mode=development" in box("cat", unit).out, "refused means nothing was changed"
        assert box.helmctl("restart", "core", "--mode", "production").err.startswith("hivematrix-core.service: ")
        for words in ((), ("restart", "core"), ("apply",), ("start", "core")):
            if words:
                box.helmctl(*words)
            found = environment_of(box, "core")
            assert (found["FLASK_ENV"], found["HIVEMATRIX_MODE"]) == ("production", "production")
            assert "\nMode=production\n" in box("cat", unit).out
            status = box.status("core")["core"]
            assert (status["mode"], status["health"]) == ("production", "healthy")
        assert box.status("nexus")["nexus"]["mode"] == "development", "nobody asked for that"
        box("systemctl", "--user", "restart", "hivematrix-core")
        assert environment_of(box, "core")["FLASK_ENV"] == "production"
    finally:
        box.helmctl("restart", "core", "--mode", "development")
    assert environment_of(box, "core")["FLASK_ENV"] == "development"


def test_modes_have_start_commands_of_their_own(box: Sandbox) -> None:
    box.register(
        "two-ways",
        '[services.two-ways]\ntype = "command"\npath = "~/suite/faulty"\nstart_command = ["/usr/bin/sleep", "1001"]\n'
        'production.start_command = ["/usr/bin/sleep", "1002"]\nproduction.environment = { ONLY = "production" }\n',
    )
    for mode, seconds, only in (("development", "1001", None), ("production", "1002", "production")):
        box.helmctl("start" if mode == "development" else "restart", "two-ways", "--mode", mode)
        pid = box.status("two-ways")["two-ways"]["pid"]
        assert box("cat", f"/proc/{pid}/cmdline", root=True).out.split("\0")[:2] == ["/usr/bin/sleep", seconds]
        assert environment_of(box, "two-ways").get("ONLY") == only


def test_discovery_comes_with_plain_systemctl(box: Sandbox) -> None:
    directory = "/home/hive/suite/ticker"
    start = f"systemctl --user stop hivematrix-ticker; rm -f {directory}/services.json; {{}}; "
    start += "systemctl --user start hivematrix-ticker"
    box.shell(start.format("true"))
    found = json.loads(box("cat", f"{directory}/services.json").out)
    assert set(found) == {"keycloak", "core", "nexus", "codex", "ledger", "knowledgetree", "helm"}
    assert found["nexus"] == {
        "url": "https://localhost:8443", "visible": False, "admin_only": False, "billing_or_admin_only": False
    }  # fmt: skip
    assert found["helm"]["url"] == "http://localhost:5004"

    def facts() -> list[str]:
        return box("stat", "-c", "%a %F %i %Y %y", f"{directory}/services.json").out.split(" ", 2)

    before = facts()
    assert before[:2] == ["644", "regular"]
    box("systemctl", "--user", "restart", "hivematrix-ticker")
    assert facts() == before, "what has not changed is not written"
    box.shell(f"echo precious > ~/victim; {start.format(f'ln -s ~/victim {directory}/services.json')}")
    assert box.shell("cat ~/victim; rm ~/victim").out == "precious\n"
    assert facts()[:2] == ["644", "regular"]
    assert json.loads(box("cat", f"{directory}/services.json").out) == found


def test_a_drop_in_is_shown_and_never_touched(box: Sandbox) -> None:
    drop_in = f"{ADMIN_UNITS}/hivematrix-ticker.service.d/override.conf"
    own = "[Service]\nEnvironment=ADMINS_OWN=yes\n"
    unit = box("cat", f"{UNITS}/hivematrix-ticker.service").out
    editor = "/home/hive/editor"
    # systemd 257 has a line's number before the file.
    box.write(editor, f'#!/bin/bash\ncat > "${{@: -1}}" << END\n{own}END\n')
    box("chmod", "+x", editor)
    try:
        box.shell(f"SYSTEMD_EDITOR={editor} script -qec 'helmctl edit ticker' /dev/null")
        assert box("cat", drop_in).out.strip() == own.strip()
        box.helmctl("restart", "ticker")
        assert environment_of(box, "ticker")["ADMINS_OWN"] == "yes"
        assert f"ticker: with drop-in {drop_in}" in box.helmctl("status").err
        assert f"drop-in {drop_in}" in " ".join(box.helmctl("why", "ticker").out.split())
        assert f"# {drop_in}\n{own}" in box.helmctl("cat", "ticker").out
        done = box.helmctl("diff")
        assert done.code == 0 and f"hivematrix-ticker.service: the drop-in {drop_in} stays as it is" in done.err
        box.helmctl("apply")
        box.helmctl("restart", "ticker", "--mode", "development")
        assert box("cat", drop_in).out.strip() == own.strip()
        assert environment_of(box, "ticker")["ADMINS_OWN"] == "yes"
    finally:
        box.shell(f"systemctl --user revert hivematrix-ticker; rm {editor}")
    assert box("test", "-e", drop_in, check=False).code == 1
    assert box("cat", f"{UNITS}/hivematrix-ticker.service").out == unit, "revert takes only the admin's part away"
    box.helmctl("restart", "ticker")
    assert "ADMINS_OWN" not in environment_of(box, "ticker")
    assert "drop-in" not in box.helmctl("status").err


def test_an_edited_unit_is_drift_that_apply_corrects(box: Sandbox) -> None:
    path = f"{UNITS}/hivematrix-ticker.service"
    before = box("cat", path).out
    box("sed", "-i", "s/^RestartSec=.*/RestartSec=42/", path)
    shown = box.helmctl("diff", check=False)
    assert shown.code == 1 and "-RestartSec=42" in shown.out and "+RestartSec=1" in shown.out
    assert "changed on disk" in box.helmctl("status").err
    box("sed", "-i", "s/^RestartSec=.*/RestartSec=42/", f"{UNITS}/helmd-postgres.service")
    notified = box.helmctl("apply").err
    assert "hivematrix-ticker.service: changed" in notified
    assert "To take effect: helmctl restart ticker\n" in notified
    assert "To take effect: systemctl --user restart helmd-postgres.service\n" in notified
    assert box("cat", path).out == before
    assert box.helmctl("diff").code == 0


def test_a_port_held_by_another_process(box: Sandbox) -> None:
    box.helmctl("stop", "ledger")
    listens = "import socket, time; s = socket.create_server(('127.0.0.1', 5030)); time.sleep(1000)"
    box("systemd-run", "--user", "--quiet", "--unit=squatter", "python3", "-c", listens)
    try:
        pid = until(lambda: box("systemctl", "--user", "show", "-p", "MainPID", "--value", "squatter").out.strip(), 30)
        until(lambda: box.shell("ss -ltn 'sport = 5030' | grep LISTEN", check=False).out, within=30)
        done = box.helmctl("start", "ledger", check=False)
        assert done.code == 1
        assert re.search(
            rf"^✗ ledger: port 5030 is in use by pid {pid}, .*python3 .*\(squatter\.service\)$", done.err, re.M
        )
        assert f"Its port 5030 is in use by pid {pid}," in " ".join(box.helmctl("why", "ledger").out.split())
        plain = box("systemctl", "--user", "start", "hivematrix-ledger", check=False)
        assert plain.code != 0, "the unit refuses by itself, too"
        said = box("journalctl", "--user", "-u", "hivematrix-ledger", "-n", "20", "-o", "cat").out
        # From inside its hardening it sees whose the port is, but not which process it is.
        assert "port 5030 is in use by a process of uid 1000" in said
        assert box("systemctl", "--user", "is-active", "squatter").out.strip() == "active"
    finally:
        box("systemctl", "--user", "stop", "squatter", "hivematrix-ledger")
    assert box.helmctl("start", "ledger").err.count("✓ ledger: started") == 1


def test_a_unit_started_by_systemctl_is_adopted(box: Sandbox) -> None:
    box.helmctl("stop", "codex")
    box("systemctl", "--user", "start", "hivematrix-codex")
    status = box.status("codex")["codex"]
    assert (status["status"], status["health"]) == ("running", "healthy")
    done = box.helmctl("start", "codex")
    assert "✓ codex: already running, healthy" in done.err
    assert box.status("codex")["codex"]["pid"] == status["pid"]


THEIRS = "[Unit]\nDescription=Somebody else's\n[Service]\nExecStart=/usr/bin/sleep 1000\n"


def test_a_foreign_unit_in_our_place_is_left_alone(box: Sandbox) -> None:
    path = f"{UNITS}/hivematrix-foreign.service"
    box.write(path, THEIRS)
    entry = "/home/hive/.config/hivematrix/services.d/foreign.toml"
    box.write(entry, '[services.foreign]\ntype = "command"\npath = "~/suite/faulty"\nstart_command = "sleep 5"\n')
    box("systemctl", "--user", "daemon-reload")
    try:
        done = box.helmctl("apply")
        assert "hivematrix-foreign.service: is not Helm's and stays as it is" in done.err
        assert "is not Helm's" in box.helmctl("diff").err
        box.helmctl("start", "foreign")
        assert box("cat", path).out == THEIRS
        # Gone from the registry, it is not taken for one of ours that is to be removed either.
        box("rm", entry)
        box.helmctl("apply")
        assert box("cat", path).out == THEIRS
        assert re.search(r"^foreign +running \(not in the registry\)", box.helmctl("status").out, re.M)
    finally:
        box.shell(f"systemctl --user stop hivematrix-foreign; rm -f {path} {entry}; systemctl --user daemon-reload")


def test_an_admins_own_unit_of_that_name_wins_and_is_named(box: Sandbox) -> None:
    """~/.config/systemd/user comes before Helm's directory in systemd's search path."""
    path = f"{ADMIN_UNITS}/hivematrix-ticker.service"
    box.write(path, THEIRS)
    try:
        box("systemctl", "--user", "daemon-reload")
        assert f"ticker: its unit is not Helm's ({path})" in box.helmctl("status").err
        box.helmctl("apply")
        assert box("cat", path).out == THEIRS
    finally:
        box("rm", path)
        box("systemctl", "--user", "daemon-reload")


def test_an_orphan_unit_is_shown_as_such_in_json(box: Sandbox) -> None:
    box("systemd-run", "--user", "--quiet", "--unit=hivematrix-foo", "sleep", "1000")
    try:
        (entry,) = json.loads(box.helmctl("status", "--json", "foo").out)
        assert (entry["service_name"], entry["status"], entry["registered"]) == ("foo", "running", False)
        assert re.search(r"^foo +running \(not in the registry\)", box.helmctl("status").out, re.M)
        assert "It is not in services.toml; Helm shows it, but does not manage it." in " ".join(
            box.helmctl("why", "foo").out.split()
        )
    finally:
        box("systemctl", "--user", "stop", "hivematrix-foo")
    assert box.helmctl("status", "foo", check=False).code == 4


def test_a_service_taken_out_of_the_registry_is_taken_away_whole(box: Sandbox) -> None:
    box.register("gone", '[services.gone]\ntype = "command"\npath = "~/suite/faulty"\nstart_command = "sleep 1000"\n')
    box.helmctl("start", "gone")
    box("rm", "/home/hive/.config/hivematrix/services.d/gone.toml")
    done = box.helmctl("apply")
    assert "hivematrix-gone.service: still running, its unit is kept; stop it and apply again" in done.err
    assert box("systemctl", "--user", "is-active", "hivematrix-gone").out.strip() == "active"
    box.helmctl("stop", "gone")
    assert "hivematrix-gone.service: removed" in box.helmctl("apply").err
    box.registered.remove("gone")
    left = box.shell(f"find {UNITS} {ADMIN_UNITS} ~/.local/state/hivematrix -name '*hivematrix-gone*'").out
    assert left == ""
    assert box("systemctl", "--user", "cat", "hivematrix-gone", check=False).code == 1
