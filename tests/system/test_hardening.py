"""Hardening, proved from inside a service: what it can't do, against the same program with less of it.

`tests/suite/faulty/sandboxed.py` tries the general things; LOOKER below what concerns Helm's own account.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from helmd.model.units.hardening import EXPOSURE, ISOLATED, PROFILES, Hardening
from tests.system.booted import Sandbox, until

MOST = 2.5
"""The exposure that a unit may have by systemd-analyze's reckoning (0 is none, 10 is all)."""
LEVELS = {"default": 6119, "strict": 6120, "basic": 6121, "off": 6122}
OTHER = "other"
NARROW = "narrow"

SETUID = "/usr/local/open/id"

# Things whose answer depends on the level alone, and what gives each away. All are left in place by root below.
LOOKER = r"""
import json, os, pwd, socket, time

def attempt(what):
    try:
        return [True, str(what())[:200]]
    except OSError as error:
        return [False, os.strerror(error.errno) if error.errno else str(error)]

def connect(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(path)
        return "connected"

def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
    return "written"

run = f"/run/user/{os.getuid()}"
home = pwd.getpwuid(os.getuid()).pw_dir
open("report.json.new", "w").close()
report = {
    "write_usr": attempt(lambda: write("/usr/local/open/x")),
    "write_etc": attempt(lambda: write("/etc/open/x")),
    "write_var": attempt(lambda: write("/var/tmp-open/x")),
    "write_own_directory": attempt(lambda: write("x")),
    "write_writable_path": attempt(lambda: write(f"{home}/shared/x")),
    "read_own_secrets": attempt(lambda: os.listdir(f"{home}/.config/hivematrix/secrets")),
    "read_other_service": attempt(lambda: os.listdir(f"{home}/suite/core/keys")),
    "write_own_home": attempt(lambda: write(os.path.expanduser("~/.cache-of-x"))),
    "see_home_of_another": attempt(lambda: os.listdir(f"{home}/.local/state/hivematrix/homes/core")),
    "read_helm_state": attempt(lambda: os.listdir(f"{home}/.local/state/hivematrix/postgres-helm")),
    "chown_to_itself": attempt(lambda: os.chown("report.json.new", os.getuid(), os.getgid())),
    "setuid_to_itself": attempt(lambda: os.setuid(os.getuid())),
    "list_interfaces": attempt(lambda: socket.if_nameindex()),
    "use_shared_memory_of_others": attempt(lambda: open("/dev/shm/of-others").read()),
    "use_own_shared_memory": attempt(lambda: write("/dev/shm/of-itself")),
    "read_ssh_keys": attempt(lambda: os.listdir(f"{home}/.ssh")),
    "read_root_home": attempt(lambda: open("/root/readable").read()),
    "user_bus": attempt(lambda: connect(f"{run}/bus")),
    "helm_socket": attempt(lambda: connect(f"{run}/hivematrix/helm.sock")),
    "private_systemd_socket": attempt(lambda: connect(f"{run}/systemd/private")),
    "see_tmp_of_others": attempt(lambda: open("/tmp/of-others").read()),
    "see_devices": attempt(lambda: open("/dev/of-others").read()),
    "read_core_environment": attempt(lambda: len(open(f"/proc/{os.environ['CORE_PID']}/environ").read())),
    "signal_core": attempt(lambda: os.kill(int(os.environ["CORE_PID"]), 0)),
    "use_discovery": attempt(lambda: len(open("services.json").read())),
    "postgres_socket": attempt(lambda: connect(f"{run}/hivematrix/postgres-suite/.s.PGSQL.5499")),
}
with open("report.json.new", "w") as file:
    json.dump(report, file)
os.rename("report.json.new", "report.json")
time.sleep(1e6)
"""


def registry(core_pid: int) -> str:
    """sandboxed.py and LOOKER at each level."""
    entries = []
    for level, port in LEVELS.items():
        given = f'PORT = "{port}", OTHER_HOME = "/home/{OTHER}", OTHER_FILE = "/home/{OTHER}/readable"'
        given += f', HARDENING = "{level}"'
        entries.append(f"""
[services.tries-{level}]
type = "command"
path = "~/suite/faulty"
start_command = ["/usr/bin/python3", "sandboxed.py"]
port = {port}
environment = {{ {given}, SETUID_PROGRAM = "{SETUID}" }}
hardening = "{level}"

[services.looks-{level}]
type = "command"
path = "~/looks-{level}"
start_command = ["/usr/bin/python3", "looker.py"]
environment = {{ CORE_PID = "{core_pid}" }}
writable_paths = ["~/shared"]
services_json = true
hardening = "{level}"
""")
    return "".join(entries)


@pytest.fixture(scope="module")
def prepared(demo: Sandbox) -> Iterator[Sandbox]:
    """The sandbox with another account and with places that file permissions alone would leave open."""
    demo(
        "sh",
        "-euc",
        f"""
        id {OTHER} > /dev/null 2>&1 || useradd -m {OTHER}
        chmod 755 /home/{OTHER} /root
        for file in /home/{OTHER}/readable /root/readable /tmp/of-others /dev/of-others /dev/shm/of-others; do
            echo content > $file
            chmod 644 $file
        done
        mkdir -p /usr/local/open /etc/open /var/tmp-open
        chmod 777 /usr/local/open /etc/open /var/tmp-open
        install -m 4755 /usr/bin/id {SETUID}
        """,
        root=True,
    )
    demo.shell("mkdir -p ~/.ssh ~/shared; touch ~/.ssh/id")
    for level in LEVELS:
        demo.write(f"/home/hive/looks-{level}/looker.py", LOOKER)
    try:
        yield demo
    finally:
        demo.shell("rm -rf ~/looks-* ~/shared ~/.ssh/id")
        demo(
            "sh",
            "-c",
            f"userdel -r {OTHER}; chmod 700 /root; rm -rf /root/readable /tmp/of-others /dev/of-others "
            "/dev/shm/of-others /usr/local/open /etc/open /var/tmp-open",
            root=True,
        )


@pytest.fixture(scope="module")
def reports(prepared: Sandbox) -> Iterator[dict[str, dict[str, tuple[bool, str]]]]:
    """By level: what was allowed, with the details."""
    demo = prepared
    core = demo.status("core")["core"]
    demo.register("hardening", registry(core["pid"]))
    try:
        demo.helmctl("start", *[f"{kind}-{level}" for level in LEVELS for kind in ("tries", "looks")])
        found: dict[str, dict[str, tuple[bool, str]]] = {}
        for level, port in LEVELS.items():
            served: dict[str, Any] = json.loads(demo("curl", "-s", f"http://127.0.0.1:{port}/").out)
            found[level] = {name: (each["allowed"], each["detail"]) for name, each in served["can"].items()}
            found[level] |= {name: (True, value) for name, value in served["status"].items()}
            looked = json.loads(demo("cat", f"/home/hive/looks-{level}/report.json").out)
            found[level] |= {f"look_{name}": (allowed, detail) for name, (allowed, detail) in looked.items()}
        yield found
    finally:
        demo.unregister()


# What: whether default, strict, basic and off allow it.
EFFECTS = {
    "look_write_usr": (False, False, True, True),
    "look_write_etc": (False, False, True, True),
    "look_write_var": (False, False, True, True),
    "write_home": (False, False, True, True),
    "read_other_home": (False, False, True, True),
    "read_other_file": (False, False, True, True),
    "look_read_root_home": (False, False, True, True),
    "look_read_own_secrets": (False, False, True, True),
    "look_read_other_service": (False, False, True, True),
    "look_read_ssh_keys": (False, False, True, True),
    "look_user_bus": (False, False, True, True),
    "look_helm_socket": (False, False, True, True),
    "look_private_systemd_socket": (False, False, True, True),
    "look_see_tmp_of_others": (False, False, True, True),
    "look_see_devices": (False, False, True, True),
    "look_read_core_environment": (False, False, True, True),
    "read_other_environ": (False, False, True, True),
    "read_journal": (False, False, True, True),
    "send_to_journal": (True, True, True, True),
    "write_cgroup": (False, False, True, True),
    "netlink_socket": (True, False, False, True),
    "set_setuid_bit": (False, False, False, True),
    "map_writable_code": (True, False, False, True),
    "unshare_user": (False, False, False, True),
    "unshare_network": (False, False, False, True),
    "change_personality": (False, False, False, True),
    "write_own_directory": (True, True, True, True),
    "look_write_own_directory": (True, True, True, True),
    "look_write_writable_path": (True, True, True, True),
    "look_use_discovery": (True, True, True, True),
    "look_postgres_socket": (False, False, True, True),
    "write_tmp": (True, True, True, True),
    "listen_on_loopback": (True, True, True, True),
    "unix_socket": (True, True, True, True),
    "read_shadow": (False, False, False, False),
    "mount": (False, False, False, False),
    "set_clock": (False, False, False, False),
    "set_hostname": (False, False, False, False),
    "packet_socket": (False, False, False, False),
    "write_kernel_setting": (False, False, False, False),
    "look_write_own_home": (True, True, True, True),
    "look_see_home_of_another": (False, False, True, True),
    "look_read_helm_state": (False, False, True, True),
    "look_chown_to_itself": (True, False, False, True),
    "look_setuid_to_itself": (True, False, False, True),
    "look_list_interfaces": (True, False, False, True),
    "look_use_shared_memory_of_others": (False, False, True, True),
    "look_use_own_shared_memory": (True, True, True, True),
    "gain_rights": (False, False, False, True),
    "rare_socket": (False, False, False, True),
    "call_32_bit": (False, False, False, True),
    "trace": (False, False, False, True),
    "take_a_processor": (False, False, False, False),
    "load_module": (False, False, False, False),
}


@pytest.mark.parametrize("what", EFFECTS)
def test_effect(reports: dict[str, dict[str, tuple[bool, str]]], what: str) -> None:
    seen = {level: reports[level][what] for level in LEVELS}
    assert tuple(allowed for allowed, _ in seen.values()) == EFFECTS[what], seen


def test_why_writes_fail(reports: dict[str, dict[str, tuple[bool, str]]]) -> None:
    """By the mount, not for lack of a permission."""
    for place in ("look_write_usr", "look_write_etc", "look_write_var"):
        assert [reports[level][place][1] for level in ISOLATED] == ["Read-only file system"] * 2


def test_status_of_the_process(prepared: Sandbox, reports: dict[str, dict[str, tuple[bool, str]]]) -> None:
    levels = [reports[level] for level in LEVELS]
    # 0022 in Debian 12, 0002 in 13, where an account's group is its own.
    of_account = prepared("systemd-run", "--user", "--quiet", "--pipe", "--wait", "sh", "-c", "umask").out.strip()
    assert [level["NoNewPrivs"][1] for level in levels] == ["1", "1", "1", "0"]
    assert [int(level["CapBnd"][1], 16) == 0 for level in levels] == [True, True, False, False]
    assert [level["Umask"][1] for level in levels] == ["0077", "0077", "0077", of_account]
    assert all(int(level["CapEff"][1], 16) == 0 for level in levels)


@pytest.mark.parametrize("level", PROFILES)
def test_what_a_service_prints_and_sends_is_in_the_journal(
    prepared: Sandbox, reports: dict[str, dict[str, tuple[bool, str]]], level: Hardening
) -> None:
    """That it may not read the journal keeps none of its own lines out."""
    assert reports[level]["send_to_journal"][0]

    def lines() -> str:
        return prepared("journalctl", "--user", "-q", "-o", "cat", "-u", f"hivematrix-tries-{level}.service").out

    until(lambda: f"sent by {level}\n" in lines() and '"write_own_directory"' in lines(), 60)


def test_a_call_that_is_filtered_fails_and_does_not_kill(reports: dict[str, dict[str, tuple[bool, str]]]) -> None:
    assert [reports[level]["trace"][1] for level in ISOLATED] == ["[Errno 1] Operation not permitted"] * 2


@pytest.mark.parametrize("level", PROFILES)
def test_exposure_is_what_the_manual_says(
    demo: Sandbox, reports: dict[str, dict[str, tuple[bool, str]]], level: Hardening
) -> None:
    assert reports[level]
    assert exposure(demo, f"hivematrix-looks-{level}.service") == pytest.approx(EXPOSURE[level], abs=0.1)


def exposure(box: Sandbox, unit: str) -> float:
    notified = box("systemd-analyze", "--user", "security", "--no-pager", unit).out
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+) ", notified)
    assert found, notified
    return float(found.group(1))


@pytest.mark.parametrize(
    "unit",
    ["hivematrix-core", "hivematrix-keycloak", "hivematrix-postgres", "hivematrix-ticker", "helmd-postgres"],
    ids=["python", "keycloak", "postgres", "command", "store"],
)
def test_exposure_of_each_kind(demo: Sandbox, unit: str) -> None:
    figure = exposure(demo, f"{unit}.service")
    print(f"{unit}: {figure}")
    assert figure <= MOST


@pytest.mark.parametrize("service", ["core", "nexus", "codex", "ticker", "postgres", "keycloak"])
def test_services_of_the_demo_are_in_namespaces_of_their_own(demo: Sandbox, service: str) -> None:
    pid = demo.status(service)[service]["pid"]
    manager = "$(systemctl --user show -p MainPID --value helmd)"
    for kind in ("user", "mnt"):
        both = demo(
            "sh", "-c", f"readlink /proc/{pid}/ns/{kind}; readlink /proc/{manager}/ns/{kind}", root=False
        ).out.split()  # fmt: skip
        assert len(both) == 2 and both[0] != both[1], f"{service} shares its {kind} namespace with Helm"


@pytest.fixture(scope="module")
def narrow(demo: Sandbox) -> Iterator[Sandbox]:
    """An account whose user manager may make no user namespaces, as on hosts that forbid them."""
    demo(
        "sh",
        "-euc",
        f"""
        useradd -m {NARROW}
        uid=$(id -u {NARROW})
        mkdir -p /etc/systemd/system/user@$uid.service.d
        printf '[Service]\\nRestrictNamespaces=~user\\n' > /etc/systemd/system/user@$uid.service.d/narrow.conf
        systemctl daemon-reload
        loginctl enable-linger {NARROW}
        systemctl start user@$uid.service  # returns when its bus is there
        chmod 755 /home/hive /home/hive/sample-suite
        """,
        root=True,
    )
    try:
        yield demo
    finally:
        demo(
            "sh",
            "-c",
            f"""
            uid=$(id -u {NARROW})
            loginctl disable-linger {NARROW}
            systemctl stop user@$uid.service
            rm -r /etc/systemd/system/user@$uid.service.d
            systemctl daemon-reload
            userdel -r {NARROW}
            """,
            root=True,
        )


NARROW_SETTINGS = """
[http]
port = 6130

[suite]
database_port = 6131
"""

NARROW_REGISTRY = """
[services.codex]
path = "~/suite/codex"
port = 6132
depends_on = []
environment = { PORT = "6132" }

[services.ticker]
type = "command"
path = "~/suite/ticker"
start_command = ["bin/ticker"]
"""


def as_narrow(box: Sandbox, script: str, check: bool = True) -> Any:
    """Runs a script as that account, on its bus."""
    uid = box("id", "-u", NARROW).out.strip()
    run = f"/run/user/{uid}"
    return box(
        *["runuser", "-u", NARROW, "--", "env", "-C", f"/home/{NARROW}", f"HOME=/home/{NARROW}"],
        *[f"XDG_RUNTIME_DIR={run}", f"DBUS_SESSION_BUS_ADDRESS=unix:path={run}/bus", "sh", "-euc", script],
        root=True,
        check=check,
    )


def test_fallback_without_user_namespaces(narrow: Sandbox) -> None:
    """The set that works without is rendered, the services run, and doctor says so."""
    refused = as_narrow(narrow, "systemd-run --user --wait --quiet -p PrivateUsers=yes true", check=False)
    assert refused.code == 217, "otherwise this account has nothing to fall back from"
    as_narrow(narrow, "/home/hive/sample-suite/install ~/suite codex ticker; mkdir -p ~/.config/hivematrix")
    narrow.write(f"/home/{NARROW}/.config/hivematrix/helm.toml", NARROW_SETTINGS, root=True)
    narrow.write(f"/home/{NARROW}/registry.toml", NARROW_REGISTRY, root=True)
    narrow("chown", "-R", f"{NARROW}:", f"/home/{NARROW}", root=True)
    said = as_narrow(narrow, "helmctl setup --registry registry.toml").text
    assert "hardening is limited to what works without" in said
    as_narrow(narrow, "helmctl up")
    status = json.loads(as_narrow(narrow, "helmctl status --json").out)
    assert {entry["service_name"]: entry["state"] for entry in status} == {
        "postgres": "healthy", "codex": "healthy", "ticker": "healthy"
    }  # fmt: skip
    units = "~/.local/share/systemd/user"
    assert as_narrow(narrow, f"systemd-analyze --user verify --man=no {units}/hive*.service {units}/helm*").text == ""
    for unit in ("hivematrix-codex", "hivematrix-ticker", "hivematrix-postgres", "helmd-postgres"):
        text = as_narrow(narrow, f"cat {units}/{unit}.service").out
        assert "NoNewPrivileges=yes" in text and "SystemCallFilter=" in text
        assert "PrivateUsers" not in text and "ProtectSystem" not in text
        figure = re.search(
            r"level for \S+: ([0-9.]+)", as_narrow(narrow, f"systemd-analyze --user security --no-pager {unit}").out
        )
        assert figure and MOST < float(figure.group(1)) < 7, "the lesser set, but a set"
    doctor = as_narrow(narrow, "helmctl doctor", check=False).text
    assert re.search(r"warn +hardening +limited: without user namespaces", doctor), doctor
    assert re.search(r"ok +units ", doctor), doctor
