"""Settings that expose something: of Helm, services' environments, PostgreSQL, the SSH server, the kernel."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Network

from helmd.model.config.secrets import holds_password
from helmd.model.config.settings import Settings
from helmd.model.security.findings import SecurityFinding, security_finding
from helmd.model.security.passwords import is_secret_name
from helmd.model.suite.names import Mode, unit_of
from helmd.model.suite.service import Registry

_OFF = ("", "0", "false", "no", "off", "none")
_DEBUG_SWITCHES = ("FLASK_DEBUG", "DEBUG", "DJANGO_DEBUG", "QUARKUS_DEBUG", "KC_DEBUG")
_REMOTE_DEBUGGER = re.compile(r"-agentlib:jdwp|-Xrunjdwp|--inspect(?:-brk)?\b|\bdebugpy\b|--debug-port")
_OPTIONS = ("JAVA_OPTS", "JAVA_TOOL_OPTIONS", "JAVA_OPTS_APPEND", "NODE_OPTIONS", "PYTHONBREAKPOINT")
_POWERFUL = (
    "root",
    "sudo",
    "wheel",
    "admin",
    "docker",
    "lxd",
    "libvirt",
    "disk",
    "shadow",
    "kmem",
    "podman",
    "incus-admin",
)
"""Groups whose members can become root."""
_ASSIGNMENT = re.compile(r"^\s*Environment\s*=\s*(.*)$", re.MULTILINE)
_VARIABLE = re.compile(r"""["']?([A-Za-z_][A-Za-z0-9_]*)=("[^"]*"|'[^']*'|\S*)""")


def judge_trust(settings: Settings, suite: Registry) -> Iterator[SecurityFinding]:
    """Yield who besides Helm's own logins may change something over HTTP, as ``helm.toml`` has it."""
    for network in settings.trusted_proxies:
        size = 32 - network.prefixlen if isinstance(network, IPv4Network) else (128 - network.prefixlen) // 2
        if size > 8:
            yield security_finding(
                "broad-trust",
                f"http.trusted_proxies {network}",
                f"http.trusted_proxies trusts all of {network}",
                [f"helm.toml: http.trusted_proxies has {network}, {network.num_addresses:,} addresses"],
                "Name the proxies' own addresses there, in helm.toml; then: systemctl --user reload helmd",
                "high" if size >= 16 else "medium",
            )
    for pattern in settings.trusted_units:
        units = [unit_of(name) for name in suite.names if fnmatchcase(unit_of(name), pattern)]
        if units and ("*" in pattern or "?" in pattern):
            yield security_finding(
                "broad-trust",
                f"http.trusted_units {pattern}",
                f"http.trusted_units trusts {len(units)} services of the suite by a pattern",
                [f"helm.toml: http.trusted_units has {pattern}, which means {', '.join(units[:5])}"],
                "Name the units that need it in http.trusted_units of helm.toml; then: systemctl --user reload helmd",
            )
    if settings.ingest_anonymous != "no":
        yield security_finding(
            "anonymous-ingest",
            "ingest.anonymous",
            "every program of this machine can write log entries under any name",
            [f'helm.toml: ingest.anonymous = "{settings.ingest_anonymous}"'],
            'ingest.anonymous = "no" in helm.toml; then: systemctl --user reload helmd',
        )


def judge_debugging(
    service: str, mode: Mode, variables: Mapping[str, str], place: str, wide: bool
) -> Iterator[SecurityFinding]:
    """Check whether VARIABLES of a service, as PLACE has them, switch on a debugger.

    WIDE: other machines can reach it.
    """
    fix = f"Remove it from {place}; then: helmctl restart {service}"
    for name, value in variables.items():
        if name in _OPTIONS and (found := _REMOTE_DEBUGGER.search(value)):
            yield security_finding(
                "debug-mode",
                f"{service} {name}",
                f"{service} can be debugged by whoever connects to it",
                [f"{place}: {name} has {found[0]}"],
                fix,
                "critical" if wide else None,
            )
        switched_on = name in _DEBUG_SWITCHES and value.strip().lower() not in _OFF
        if switched_on or (name in ("FLASK_ENV", "NODE_ENV") and value == "development" and mode == "production"):
            yield security_finding(
                "debug-mode",
                f"{service} {name}",
                f"{service} runs in {mode} mode with {name} on",
                [f"{place}: {name}={value[:20]}", *(["other machines can reach it"] if wide else [])],
                fix,
                "critical" if wide else "high" if mode == "production" else "low",
            )


def secrets_in_unit(text: str) -> Iterator[str]:
    """Yield the names of variables in ``Environment=`` of a unit file whose values are secrets."""
    for line in _ASSIGNMENT.findall(text):
        for name, value in _VARIABLE.findall(line):
            bare = value.strip("\"'")
            if bare and (is_secret_name(name) or holds_password(bare)):
                yield name


def judge_unit_text(unit: str, files: Mapping[str, str]) -> Iterator[SecurityFinding]:
    """Yield secrets in the FILES that a unit is made of (text by path)."""
    for path, text in files.items():
        for name in dict.fromkeys(secrets_in_unit(text)):
            yield security_finding(
                "secret-in-unit",
                f"{unit} {name}",
                f"{unit} has the secret {name} in its unit file",
                [f"{path}: Environment={name}=…"],
                f"Move {name} to the service's file in ~/.config/hivematrix/secrets/; then: "
                f"systemctl --user daemon-reload; systemctl --user restart {unit}",
            )


@dataclass(frozen=True, slots=True)
class HbaLine:
    """A record of ``pg_hba.conf`` (PostgreSQL manual, "The pg_hba.conf File"). ``address`` is empty for ``local``."""

    number: int
    kind: str
    databases: str
    roles: str
    address: str
    method: str


def hba_lines(text: str) -> Iterator[HbaLine]:
    """Yield the records in TEXT."""
    for number, line in enumerate(text.splitlines(), 1):
        words = re.findall(r'"(?:[^"]|"")*"|[^\s#"]+|#.*', line)
        words = [word for word in words if not word.startswith("#")]
        if words[:1] == ["local"] and len(words) >= 4:
            yield HbaLine(number, words[0], words[1], words[2], "", words[3])
        elif words and words[0].startswith("host") and len(words) >= 5:
            # An address may be followed by a mask of its own.
            masked = len(words) >= 6 and re.fullmatch(r"[0-9a-fA-F.:]+", words[4]) is not None
            address = f"{words[3]} {words[4]}" if masked else words[3]
            yield HbaLine(number, words[0], words[1], words[2], address, words[5 if masked else 4])


def judge_hba(cluster: str, path: str, text: str) -> Iterator[SecurityFinding]:
    """Yield who may log in to a cluster without a password, or shows it to the network."""
    for line in hba_lines(text):
        said = f"{line.kind} {line.databases} {line.roles} {line.address}".strip()
        evidence = [f"{path}:{line.number}: {said} {line.method}"]
        if line.method == "trust":
            yield security_finding(
                "trust-login",
                f"{cluster} {said}",
                f"{cluster} lets in {line.roles} to {line.databases} without a password",
                evidence,
                f"helmctl apply writes {path} again; then: helmctl restart {cluster}",
            )
        elif line.method == "password" and line.kind not in ("local", "hostssl"):
            yield security_finding(
                "cleartext-listener",
                f"{cluster} {said}",
                f"{cluster} has passwords sent to it as they are, without TLS",
                evidence,
                f"helmctl apply writes {path} again; then: helmctl restart {cluster}",
            )


def judge_sshd(files: Sequence[tuple[str, str]]) -> Iterator[SecurityFinding]:
    """Check whether root can log in over SSH by password. FILES (path, text) in the order in which sshd(8) reads them.

    The first value of a setting counts; what is in Match blocks is for some connections only, and is left out.
    """
    given: dict[str, tuple[str, str]] = {}
    for path, text in files:
        for line in text.splitlines():
            words = line.split("#")[0].replace("=", " ").split()
            if not words:
                continue
            if words[0].lower() == "match":
                break
            if len(words) > 1:
                given.setdefault(words[0].lower(), (words[1].lower(), f"{path}: {' '.join(words)}"))
    root, said = given.get("permitrootlogin", ("prohibit-password", ""))
    passwords, how = given.get("passwordauthentication", ("yes", "PasswordAuthentication yes is the default"))
    if root == "yes" and passwords == "yes":
        yield security_finding(
            "ssh-root-password",
            "sshd",
            "root can log in over SSH by password",
            [said, how],
            "printf 'PermitRootLogin prohibit-password\\n' | sudo tee /etc/ssh/sshd_config.d/00-root.conf; "
            "sudo systemctl reload ssh",
        )


@dataclass(frozen=True, slots=True)
class KernelSetting:
    """A setting of sysctl(8) and the values with which it protects."""

    name: str
    safe: Collection[str]
    recommended: str
    why: str


KERNEL_SETTINGS = (
    KernelSetting("kernel.randomize_va_space", ("1", "2"), "2", "addresses in programs are the same at each start"),
    KernelSetting("fs.protected_symlinks", ("1",), "1", "links in /tmp can lead a program of another account astray"),
    KernelSetting(
        "fs.protected_hardlinks", ("1",), "1", "an account can keep other accounts' files under names of its own"
    ),
    KernelSetting(
        "kernel.unprivileged_bpf_disabled", ("1", "2"), "2", "every program can load programs into the kernel"
    ),
    KernelSetting(
        "kernel.yama.ptrace_scope", ("1", "2", "3"), "1", "programs of an account can read each other's memory"
    ),
    KernelSetting(
        "fs.suid_dumpable", ("0", "2"), "0", "memory of setuid programs is written to files that others read"
    ),
)
"""What Debian sets, and an admin may have unset."""


def judge_kernel(values: Mapping[str, str]) -> Iterator[SecurityFinding]:
    """Yield what of KERNEL_SETTINGS does not protect.

    Those that the kernel lacks, or does not show, are not in VALUES.
    """
    for setting in KERNEL_SETTINGS:
        value = values.get(setting.name)
        if value is not None and value not in setting.safe:
            yield security_finding(
                "kernel-setting",
                setting.name,
                f"{setting.name} is {value}: {setting.why}",
                [f"sysctl {setting.name} = {value}"],
                f"printf '{setting.name} = {setting.recommended}\\n' | sudo tee /etc/sysctl.d/90-{setting.name}.conf; "
                f"sudo sysctl --system",
                "low" if setting.name == "kernel.yama.ptrace_scope" else None,
            )


def judge_groups(account: str, uid: int, groups: Collection[str]) -> Iterator[SecurityFinding]:
    """Through which of its GROUPS the account can become root."""
    if uid == 0:
        yield security_finding(
            "runs-as-root",
            account,
            "the suite runs as root",
            [f"the account {account} has uid 0"],
            "Set the suite up for an account of its own: sudo helmctl setup --account hivematrix",
        )
    for group in sorted(set(groups) & set(_POWERFUL)):
        yield security_finding(
            "powerful-group",
            f"{account} {group}",
            f"{account} is a member of the group {group}",
            [f"id {account}: {', '.join(sorted(groups))}"],
            f"sudo gpasswd -d {account} {group}; or move the suite to an account of its own: "
            "sudo helmctl setup --account hivematrix",
        )


_PENDING = re.compile(r"^Inst (\S+) .*\((\S+) [^)]*(?:[Ss]ecurity)", re.MULTILINE)


def judge_updates(simulated: str) -> Iterator[SecurityFinding]:
    """Yield security updates that are pending, by the output of ``apt-get --simulate upgrade``."""
    pending = [f"{name} {version}" for name, version in _PENDING.findall(simulated)]
    if pending:
        yield security_finding(
            "security-updates",
            "apt",
            f"{len(pending)} security update{'s are' if len(pending) > 1 else ' is'} not installed",
            [*pending[:10], *([f"and {len(pending) - 10} more"] if len(pending) > 10 else [])],
            "sudo apt update; sudo apt upgrade; see also the package unattended-upgrades",
        )
