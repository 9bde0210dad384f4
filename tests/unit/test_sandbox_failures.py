"""Which directive and setting are named for what programs print and how they end; nothing is said otherwise."""

from pathlib import Path

import pytest

from helmd.model.suite.service import Service
from helmd.model.units.hardening import DIRECTIVES, PROFILES, Hardening
from helmd.model.units.sandbox_failures import Cause, Sandbox, causes
from helmd.model.units.unit_state import CLD_DUMPED, CLD_EXITED, CLD_KILLED, CommandExit, UnitFacts
from helmd.operations.diagnostics.sandbox import hidden_from, sandbox_of

SERVICE = Service(name="app", type="command", start_command=("/home/me/tools/server", "--port", "1"))
FAMILIES = frozenset({"AF_UNIX", "AF_INET", "AF_INET6"})


def sandbox(profile: Hardening) -> Sandbox:
    names = frozenset(directive.name for directive in DIRECTIVES if profile in directive.profiles)
    if profile == "default":
        return Sandbox(names, FAMILIES | {"AF_NETLINK"}, frozenset({"read", "chown", "setuid"}))
    return Sandbox(names, FAMILIES, frozenset({"read"})) if profile != "off" else Sandbox()


def found(
    lines: str = "",
    profile: Hardening = "default",
    end: tuple[int, int] = (CLD_EXITED, 1),
    start: tuple[int, int] = (0, 0),
) -> list[Cause]:
    facts = UnitFacts("hivematrix-app.service", exit_code=end[0], exit_status=end[1], start_exit=CommandExit(*start))
    return causes(facts, lines.splitlines(), sandbox(profile), SERVICE, lambda path: path.startswith("/home/me/"))


JIT = ("MemoryDenyWriteExecute", 'hardening = "default"')
OWNER = ("SystemCallFilter", 'hardening = "default" allows chown and setuid')


@pytest.mark.parametrize(
    ("lines", "profile", "directive", "setting"),
    [
        # As Java 17 and Node 18 print it.
        ("Failed to mark memory page as executable - check if grsecurity/PaX is enabled", "strict", *JIT),
        ("# Fatal javascript OOM in MemoryChunk allocation failed during deserialization.", "strict", *JIT),
        ("OpenJDK 64-Bit Server VM warning: INFO: os::commit_memory(0x7f, 2555904, 1) failed; errno=1", "strict", *JIT),
        ("# Check failed: 12 == (*__errno_location ()).\n#FailureMessage Object: SetPermissions", "strict", *JIT),
        ("Failed to create CoreCLR, HRESULT: 0x8007000E", "basic", *JIT),
        ("OSError: [Errno 30] Read-only file system: '/srv/data/app.db'", "default", "ProtectSystem",
         'writable_paths = ["/srv/data"]'),
        ("EROFS: read-only file system, open '/var/lib/app/x'", "strict", "ProtectSystem", '"/var/lib/app"'),
        ("nginx: [alert] open() \"/var/log/nginx/error.log\" failed (30: Read-only file system)",
         "default", "ProtectSystem", '"/var/log/nginx"'),
        ("OSError: [Errno 97] Address family not supported by protocol", "strict", "RestrictAddressFamilies",
         'hardening = "default" allows AF_NETLINK'),
        ("socket: EAFNOSUPPORT", "default", "RestrictAddressFamilies", "drop-in"),
        ("Error: os.setuid: [Errno 1] Operation not permitted", "strict", *OWNER),
        ("    os.chown(path, uid, gid)\nPermissionError: [Errno 1] Operation not permitted",
         "strict", *OWNER),
        ("PermissionError: [Errno 1] Operation not permitted", "strict", *OWNER),
        ("chown: changing ownership of 'x': Invalid argument", "default", "PrivateUsers", "the account"),
        ("setgroups: Operation not permitted", "default", "PrivateUsers", "the account"),
        ("unshare: unshare failed: Operation not permitted", "default", "RestrictNamespaces", "RestrictNamespaces="),
        ("chmod: setuid bit of 'x': Operation not permitted", "default", "RestrictSUIDSGID", "edit app"),
        ("ptrace(PTRACE_TRACEME): Operation not permitted", "default", "SystemCallFilter", "drop-in"),
        ("io_uring_setup: Function not implemented", "default", "SystemCallFilter", "drop-in"),
        ("OSError: [Errno 38] Function not implemented", "default", "SystemCallFilter", 'hardening = "off"'),
        ('sudo: The "no new privileges" flag is set, which prevents sudo from running as root.', "default",
         "NoNewPrivileges", "off"),
        ("cat: /dev/video0: No such file or directory", "default", "PrivateDevices", '"basic"'),
        ("No journal files were opened due to insufficient permissions.", "default", "InaccessiblePaths", "edit app"),
        ("PermissionError: [Errno 13] Permission denied: '/var/log/journal'", "strict", "InaccessiblePaths",
         "an empty"),
        ("/run/user/1000/bus: No such file or directory", "strict", "ProtectHome", "as the account"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/home/me/data/in.csv'", "default", "ProtectHome",
         'readable_paths = ["/home/me/data"]'),
        ("Failed to execute process: No such file or directory", "default", "ProtectHome",
         'readable_paths = ["/home/me/tools"]'),
    ],
)  # fmt: skip
def test_what_is_printed(lines: str, profile: Hardening, directive: str, setting: str) -> None:
    (cause,) = found(lines, profile)
    assert cause.directive == directive and setting in cause.fix
    assert f"({directive}=). " in str(cause)
    assert found(lines, "off") == [], "nothing restricts it"


@pytest.mark.parametrize(
    ("end", "start", "lines", "profile", "directive", "setting"),
    [
        ((CLD_DUMPED, 5), (0, 0), "", "strict", *JIT),
        ((CLD_KILLED, 6), (0, 0), "", "basic", *JIT),
        ((CLD_KILLED, 31), (0, 0), "", "default", "SystemCallArchitectures", "SystemCallArchitectures="),
        ((CLD_EXITED, 203), (0, 0), "", "default", "ProtectHome", '"/home/me/tools"'),
        ((CLD_EXITED, 226), (0, 0), "Failed to set up mount namespacing: /run/systemd/unit-root/srv/x: No such file",
         "default", "BindPaths", "writable_paths"),
        ((0, 0), (CLD_EXITED, 226), "a: Failed to set up mount namespacing: /home/me/s/homes/app: No such file",
         "default", "BindPaths", "helmctl apply"),
        ((0, 0), (CLD_EXITED, 226), "", "default", "ProtectSystem", "helmctl setup"),
        ((0, 0), (CLD_EXITED, 217), "", "strict", "PrivateUsers", "helmctl setup"),
    ],
)  # fmt: skip
def test_how_it_ended(
    end: tuple[int, int], start: tuple[int, int], lines: str, profile: Hardening, directive: str, setting: str
) -> None:
    (cause,) = found(lines, profile, end, start)
    assert cause.directive == directive and setting in cause.fix


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        ("", (CLD_EXITED, 1)),
        ("", (CLD_KILLED, 9)),
        ("", (CLD_KILLED, 5)),
        ("ModuleNotFoundError: No module named 'flask'", (CLD_EXITED, 1)),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/srv/in.csv'", (CLD_EXITED, 1)),
        ("OSError: [Errno 98] Address already in use", (CLD_EXITED, 1)),
        ("PermissionError: [Errno 13] Permission denied: '/srv/x'", (CLD_EXITED, 1)),
        ("GET /dev/null 404 not found", (CLD_EXITED, 1)),
        ("The mount of the namespace was fine", (CLD_EXITED, 3)),
    ],
)
def test_what_has_other_causes(lines: str, end: tuple[int, int]) -> None:
    """Under the default profile, which allows code in memory."""
    assert found(lines, "default", end) == []


def test_each_directive_is_named_once() -> None:
    lines = "OSError: [Errno 30] Read-only file system: '/a/b'\n" * 3 + "socket: EAFNOSUPPORT"
    assert [cause.directive for cause in found(lines, "strict")] == ["RestrictAddressFamilies", "ProtectSystem"]


def test_properties_of_a_unit_as_systemd_has_them() -> None:
    """Of the four profiles, as org.freedesktop.systemd1(5) types them; a drop-in counts."""
    properties = {
        "MemoryDenyWriteExecute": True, "NoNewPrivileges": True, "ProtectHome": "tmpfs", "ProtectSystem": "strict",
        "PrivateUsers": False, "RestrictNamespaces": 0, "CapabilityBoundingSet": 0,
        "RestrictAddressFamilies": [True, ["AF_UNIX"]], "SystemCallFilter": [True, ["read"]],
        "TemporaryFileSystem": [["/srv/home", "ro"]], "BindPaths": [["/srv/home/app", "/srv/home/app", False, 0]],
        "BindReadOnlyPaths": [],
    }  # fmt: skip
    seen = sandbox_of(properties)
    assert seen.directives == {
        "MemoryDenyWriteExecute", "NoNewPrivileges", "ProtectHome", "ProtectSystem", "RestrictNamespaces",
        "CapabilityBoundingSet", "RestrictAddressFamilies", "SystemCallFilter",
    }  # fmt: skip
    assert (set(seen.families), set(seen.calls)) == ({"AF_UNIX"}, {"read"})
    off = {
        "MemoryDenyWriteExecute": False, "ProtectHome": "no", "ProtectSystem": "no",
        "RestrictNamespaces": (1 << 64) - 1,
        "RestrictAddressFamilies": [False, []], "SystemCallFilter": [False, []], "SystemCallArchitectures": [],
    }  # fmt: skip
    assert sandbox_of(off) == Sandbox()


def test_a_hidden_path_exists_outside_only(tmp_path: Path) -> None:
    home = tmp_path
    (home / "app").mkdir()
    (home / "data").mkdir()
    properties = {
        "TemporaryFileSystem": [[str(home), "ro"]],
        "BindPaths": [[str(home / "app"), str(home / "app"), False, 0]],
    }
    assert hidden_from(properties, f"{home}/data")
    assert not any(hidden_from(properties, f"{home}/{name}") for name in ("app", "app/x", "none", "app/../none"))
    assert not hidden_from({}, f"{home}/data")


def test_profiles_are_all_known() -> None:
    assert {profile: bool(sandbox(profile).directives) for profile in PROFILES} == {
        "default": True, "strict": True, "basic": True, "off": False
    }  # fmt: skip
