"""The sandbox of a service's unit: which directives of systemd.exec(5) each profile has, and what each one prevents.

The templates of units, the manual page services.toml(5), ``helmctl why`` and the tests read this table.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple, get_args

Hardening = Literal["default", "strict", "basic", "off"]
PROFILES: tuple[Hardening, ...] = get_args(Hardening)
"""The first is the default."""
ISOLATED: tuple[Hardening, ...] = ("default", "strict")
"""Profiles that hide the account's own files. What they hide needs user namespaces."""

EXPOSURE: dict[Hardening, float] = {"default": 2.1, "strict": 1.9, "basic": 6.2, "off": 9.8}
"""What ``systemd-analyze --user security`` of systemd 252 says of a unit: 0 is the least exposed, 10 the most."""

HIDDEN_ROOTS = ("/home", "/root", "/run/user")
"""What ProtectHome= hides (systemd.exec(5))."""

WRITES_CODE = ("MemoryDenyWriteExecute",)
"""What a program with a just-in-time compiler cannot run under."""


class Directive(NamedTuple):
    """One directive, with its value in each of the profiles that have it.

    ``value`` has a line for each time that the directive is given; ``values`` are those of profiles where it differs.
    ``prevents`` completes "a service cannot ...". ``namespaces``: whether it has no effect in a user manager without
    PrivateUsers=. ``backstop``: the account has no right to do this anyway, so that trying it shows no difference.
    """

    name: str
    value: str
    prevents: str
    namespaces: bool = False
    profiles: tuple[Hardening, ...] = ISOLATED
    values: tuple[tuple[Hardening, str], ...] = ()
    backstop: bool = False

    def value_in(self, profile: Hardening) -> str | None:
        """Return the value in PROFILE, or None if the directive is not part of it."""
        return dict(self.values).get(profile, self.value) if profile in self.profiles else None


_ALL: tuple[Hardening, ...] = ("default", "strict", "basic")
_INTERNET = "AF_UNIX AF_INET AF_INET6"

DIRECTIVES = (
    Directive("NoNewPrivileges", "yes", "gain rights by a setuid program, such as sudo", profiles=_ALL),
    Directive("RestrictNamespaces", "yes", "make namespaces of its own", profiles=_ALL),
    Directive("RestrictRealtime", "yes", "take a processor by real-time scheduling", profiles=_ALL, backstop=True),
    Directive("RestrictSUIDSGID", "yes", "leave setuid or setgid files behind", profiles=_ALL),
    Directive("LockPersonality", "yes", "switch off address randomization", profiles=_ALL),
    Directive(
        "RestrictAddressFamilies",
        _INTERNET,
        "use sockets other than TCP, UDP and Unix ones; default also has AF_NETLINK, to list network interfaces",
        profiles=_ALL,
        values=(("default", f"{_INTERNET} AF_NETLINK"),),
    ),
    Directive("SystemCallArchitectures", "native", "make 32-bit system calls", profiles=_ALL),
    Directive(
        "SystemCallFilter",
        "@system-service\n~@privileged",
        "make system calls that services do not need (mount, ptrace, bpf, reboot). Under default, a program may chown "
        "files to itself, setuid to itself, and restrict itself by seccomp or landlock",
        profiles=_ALL,
        values=(
            (
                "default",
                "@system-service @pkey seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
            ),
        ),
    ),
    Directive(
        "SystemCallErrorNumber",
        "EPERM",
        "be killed for a call that the filter refuses: the call fails with EPERM",
        profiles=_ALL,
    ),
    Directive("KeyringMode", "private", "read kernel keys of the account's other processes", profiles=_ALL),
    Directive("UMask", "0077", "make files that other accounts can read by mistake", profiles=_ALL),
    Directive(
        "MemoryDenyWriteExecute",
        "yes",
        "run code that it wrote to memory. Programs with a just-in-time compiler (Java, Node, .NET, PyPy) do that",
        profiles=("strict", "basic"),
    ),
    Directive(
        "PrivateUsers",
        "yes",
        "read memory, environment and open files of the account's other processes; all below rests on this",
        namespaces=True,
    ),
    Directive("CapabilityBoundingSet", "", "hold a capability", namespaces=True),
    Directive("AmbientCapabilities", "", "pass a capability on", namespaces=True, backstop=True),
    Directive("ProtectSystem", "strict", "write outside its own places", namespaces=True),
    Directive(
        "ProtectHome",
        "tmpfs",
        "see files in home directories, the account's sockets and its D-Bus: /home, /root and /run/user are empty",
        namespaces=True,
    ),
    Directive("PrivateTmp", "yes", "see temporary files of others", namespaces=True),
    Directive(
        "InaccessiblePaths",
        "-/var/log/journal -/run/log/journal",
        "read the journal, which has what other services print, and which the account may read",
        namespaces=True,
    ),
    Directive("PrivateDevices", "yes", "use device files", namespaces=True),
    Directive("ProtectClock", "yes", "set the clock", namespaces=True, backstop=True),
    Directive("ProtectControlGroups", "yes", "change its own control group, and so its limits", namespaces=True),
    Directive("ProtectHostname", "yes", "set the host name", namespaces=True, backstop=True),
    Directive("ProtectKernelModules", "yes", "load kernel modules", namespaces=True, backstop=True),
    Directive("ProtectKernelTunables", "yes", "change kernel settings", namespaces=True, backstop=True),
)
"""In the order in which they stand in a unit. Mounts of single paths come after them (``units/common.j2``).

ProtectProc= and ProcSubset= are not among them, since they stay without effect in a user manager; nor is PrivateIPC=:
there, only the first process of a unit can be started with it.
"""


class Line(NamedTuple):
    """A line of a unit."""

    name: str
    value: str


def unit_lines(profile: Hardening, user_namespaces: bool, without: Collection[str] = ()) -> tuple[Line, ...]:
    """Return the directives of PROFILE that have an effect on the host, apart from those that are named in WITHOUT."""
    lines = []
    for directive in DIRECTIVES:
        value = directive.value_in(profile)
        if value is None or directive.name in without or (directive.namespaces and not user_namespaces):
            continue
        lines += [Line(directive.name, each) for each in value.split("\n")]
    return tuple(lines)


def isolates(profile: Hardening, user_namespaces: bool) -> bool:
    """Return whether a service with PROFILE is kept from the account's own files, sockets and processes."""
    return profile in ISOLATED and user_namespaces
