"""How a program fails because of its sandbox: which directive it met, and which setting allows what it tried.

The kernel reports a directive of systemd.exec(5) as an ordinary error (EPERM, EROFS, EAFNOSUPPORT, ENOENT) or a signal,
which programs print in their own words. So a cause is derived from how the process ended, what it printed, and which
directives its unit really has.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from helmd.model.suite.service import Service
from helmd.model.units.hardening import PROFILES
from helmd.model.units.unit_state import CLD_DUMPED, CLD_EXITED, CLD_KILLED, UnitFacts, signal_name

EXIT_EXEC, EXIT_USER, EXIT_CAPABILITIES, EXIT_NAMESPACE, EXIT_SECCOMP = 203, 217, 218, 226, 228
"""Exit codes of systemd itself, when it could not start a process (systemd.exec(5), "Process Exit Codes")."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What restricts a unit at present, drop-ins included. ``directives`` are names of systemd.exec(5)."""

    directives: frozenset[str] = frozenset()
    families: frozenset[str] = frozenset()
    """Socket families that RestrictAddressFamilies= allows."""
    calls: frozenset[str] = frozenset()
    """System calls that SystemCallFilter= allows."""


class Cause(NamedTuple):
    """Why a program failed: the directive, without "=", a sentence about it, and what to set to allow it."""

    directive: str
    sentence: str
    fix: str

    def __str__(self) -> str:
        return f"{self.sentence[0].upper()}{self.sentence[1:]} ({self.directive}=). {self.fix}"


_DEFAULT = f'hardening = "{PROFILES[0]}"'
_PATH = r"(?P<path>/[^\s'\"`:,;()\[\]<>]+)"
_CHANGES_OWNER = re.compile(
    r"\b(l?f?chown(at)?|chgrp|set(re|res)?[ug]id(?! bit)|initgroups|setgroups|ownership)\b", re.I
)
_GENERATES_CODE = re.compile(
    r"os::commit_memory|mprotect|PROT_EXEC|SetPermissions|CodeRange|code (range|space|cache)|CoreCLR|0x8007000E|"
    r"0x8007FF06|executable (memory|mem)|W\^X|\bJIT\b|just-in-time|MAP_JIT|Failed to (reserve|allocate).*code|"
    r"memory page as executable|PaX|MemoryChunk allocation failed|could not allocate.*(exec|code)|AsmMemoryError",
    re.I,
)
_DENIED = re.compile(r"Operation not permitted|\bEPERM\b|Errno 1\]|errno[ =:]*1\b")
_READ_ONLY = re.compile(r"Read-only file system|\bEROFS\b|Errno 30\]|errno[ =:]*30\b|ReadOnlyFileSystem", re.I)
_NO_FAMILY = re.compile(
    r"Address family not supported|\bEAFNOSUPPORT\b|Errno 97\]|errno[ =:]*97\b|[Nn]etlink.*(fail|error|not)"
)
_NO_CALL = re.compile(r"Function not implemented|\bENOSYS\b|Errno 38\]|errno[ =:]*38\b")
_NO_SUCH = re.compile(r"No such file or directory|\bENOENT\b|Errno 2\]")
_ABSENT = re.compile(rf"{_NO_SUCH.pattern}|does not exist|cannot find|not found|can't open", re.I)
_MOUNT = re.compile(
    rf"Failed to set up mount namespacing: (?:/run/systemd/(?:unit-root|mount-rootfs))?{_PATH}: No such"
)
_NO_PRIVILEGES = re.compile(r"no new privileges", re.I)
_EXECUTED = re.compile(r"Failed to execute process|Failed to locate executable|exec format|203/EXEC", re.I)

_NO_JOURNAL = re.compile(
    r"No journal files were (found|opened)|(Permission denied|EACCES|Errno 13\]).*/(var|run)/log/journal|"
    r"/(var|run)/log/journal.*(Permission denied|EACCES)"
)
_INVALID = re.compile(r"Invalid argument|\bEINVAL\b|Errno 22\]")
_OTHER_USER = Cause(
    "PrivateUsers",
    "it may not become another user, or give files to one",
    "Configure the program to run as the account that starts it.",
)
CONTEXT = 3
"""Lines before an error that say what failed, such as the source line in a traceback."""

_CALLS = (
    (re.compile(r"\bunshare\b|\bnamespaces?\b|\bclone\b|bwrap|setns", re.I), "RestrictNamespaces", "make namespaces"),
    (
        re.compile(r"\b(f?chmod(at)?|setuid bit|setgid bit|S_ISUID)\b", re.I),
        "RestrictSUIDSGID",
        "set a setuid or setgid bit",
    ),
    (re.compile(r"\bpersonality\b", re.I), "LockPersonality", "change its personality"),
    (
        re.compile(r"sched_setscheduler|real-?time priority|SCHED_(FIFO|RR)", re.I),
        "RestrictRealtime",
        "use real-time scheduling",
    ),
    (
        re.compile(r"\b(ptrace|perf_event_open|bpf|mount|keyctl|io_uring\w*|process_vm_\w+)\b"),
        "SystemCallFilter",
        "make that system call",
    ),
)
"""Words in an error by which a directive is known, and what it does not allow."""


def causes(
    facts: UnitFacts, lines: Sequence[str], sandbox: Sandbox, service: Service, hidden: Callable[[str], bool]
) -> list[Cause]:
    """Return what of its sandbox the unit of SERVICE may have failed by, the likeliest first; an empty list if nothing
    is.

    LINES are the last ones that it printed. HIDDEN says whether a path exists outside of the sandbox only.
    """
    ends = [end for end in ((facts.exit_code, facts.exit_status), facts.start_exit[:2]) if end[0]]
    found = [cause for end in ends for cause in _by_exit(end, lines, sandbox, service)]
    for index in reversed(range(len(lines))):
        before = " ".join(lines[max(0, index - CONTEXT) : index])
        found += _by_line(lines[index], before, sandbox, service, hidden)
    if any(_EXECUTED.search(line) for line in lines) or (CLD_EXITED, EXIT_EXEC) in ends:
        found += _hidden_program(service, sandbox, hidden)
    if not found and ends and any(_DENIED.search(line) or _NO_CALL.search(line) for line in lines):
        found += _some_call(sandbox)
    unique: dict[str, Cause] = {}
    for cause in found:
        unique.setdefault(cause.directive, cause)
    return list(unique.values())


def _by_exit(end: tuple[int, int], lines: Sequence[str], sandbox: Sandbox, service: Service) -> list[Cause]:
    code, status = end
    if code == CLD_EXITED and status == EXIT_NAMESPACE:
        return [_unset(lines, service)]
    if code == CLD_EXITED and status in (EXIT_USER, EXIT_CAPABILITIES):
        fix = "Let Helm find out what this host allows: helmctl setup; helmctl apply."
        return [Cause("PrivateUsers", "this host did not give it a user namespace", fix)]
    if code not in (CLD_KILLED, CLD_DUMPED):
        return []
    name = signal_name(status)
    if name == "SIGSYS":
        fix = f"A 32-bit program needs a drop-in with SystemCallArchitectures= (helmctl edit {service.name})."
        return [
            Cause("SystemCallArchitectures", "it was killed for a system call that its sandbox does not allow", fix)
        ]
    if name in ("SIGTRAP", "SIGILL", "SIGSEGV", "SIGABRT") and "MemoryDenyWriteExecute" in sandbox.directives:
        return [_writes_code(name)]
    return []


def _unset(lines: Sequence[str], service: Service) -> Cause:
    path = next((found.group("path") for line in reversed(lines) if (found := _MOUNT.search(line))), "")
    if path and f"/homes/{service.name}" in path:
        return Cause("BindPaths", f"its home directory {path} does not exist", "To make it again, run: helmctl apply.")
    if path:
        fix = f"Create it, or correct path and writable_paths of {service.name} in services.toml; then: helmctl apply."
        return Cause("BindPaths", f"{path}, which it may write to, does not exist", fix)
    fix = "Let Helm find out what this host allows: helmctl setup; helmctl apply."
    return Cause("ProtectSystem", "the mounts of its sandbox could not be set up", fix)


def _writes_code(how: str) -> Cause:
    sentence = (
        f"programs that generate code while they run (Java, Node, .NET, PyPy) end like this ({how}) in its sandbox"
    )
    return Cause("MemoryDenyWriteExecute", sentence, f"{_DEFAULT} allows it.")


def _by_line(line: str, before: str, sandbox: Sandbox, service: Service, hidden: Callable[[str], bool]) -> list[Cause]:
    """Return the causes that LINE speaks for, which was printed after BEFORE."""
    found = []
    has, edit = sandbox.directives, f"a drop-in (helmctl edit {service.name})"
    if "MemoryDenyWriteExecute" in has and _GENERATES_CODE.search(line):
        found.append(_writes_code("with such a line"))
    if _READ_ONLY.search(line) and "ProtectSystem" in has:
        path = _path_in(line)
        place = path.rpartition("/")[0] or path if path else "/the/directory"
        fix = f'writable_paths = ["{place}"] allows it; its HOME and its own directory are writable.'
        found.append(Cause("ProtectSystem", f"{path or 'the file system'} is read-only for it", fix))
    if _NO_FAMILY.search(line) and "RestrictAddressFamilies" in has:
        sentence = f"it may only open sockets of the families {', '.join(sorted(sandbox.families))}"
        fix = f"To allow others, use {edit} with RestrictAddressFamilies=."
        if "AF_NETLINK" not in sandbox.families:
            fix = f"{_DEFAULT} allows AF_NETLINK as well, which lists network interfaces."
        found.append(Cause("RestrictAddressFamilies", sentence, fix))
    if _NO_PRIVILEGES.search(line) and "NoNewPrivileges" in has:
        sentence = "it cannot gain rights by programs such as sudo"
        found.append(Cause("NoNewPrivileges", sentence, 'Only hardening = "off" allows that.'))
    if (_DENIED.search(line) or _NO_CALL.search(line)) and not _READ_ONLY.search(line):
        found += _refused_call(line, sandbox, edit) or _refused_call(before, sandbox, edit)
    if _INVALID.search(line) and _CHANGES_OWNER.search(f"{before} {line}") and "PrivateUsers" in sandbox.directives:
        found.append(_OTHER_USER)
    if _NO_JOURNAL.search(line) and "InaccessiblePaths" in has:
        fix = f"To show it what all services print, use {edit} with an empty InaccessiblePaths=."
        found.append(Cause("InaccessiblePaths", "the journal is hidden from it", fix))
    if _ABSENT.search(line) and (path := _path_in(line)):
        found += _absent(path, sandbox, hidden, bool(_NO_SUCH.search(line)))
    return found


def _refused_call(line: str, sandbox: Sandbox, edit: str) -> list[Cause]:
    if _CHANGES_OWNER.search(line):
        if "SystemCallFilter" in sandbox.directives and "chown" not in sandbox.calls:
            sentence = "it may not change owners and identities, even to its own"
            return [Cause("SystemCallFilter", sentence, f"{_DEFAULT} allows chown and setuid to itself.")]
        if "PrivateUsers" in sandbox.directives:
            return [_OTHER_USER]
    for words, directive, what in _CALLS:
        if directive in sandbox.directives and words.search(line):
            return [Cause(directive, f"it may not {what}", f"To allow it, use {edit} with {directive}=.")]
    return []


def _absent(path: str, sandbox: Sandbox, hidden: Callable[[str], bool], certain: bool) -> list[Cause]:
    """Return the causes when PATH was not found; CERTAIN if the kernel said so."""
    if certain and path.startswith("/dev/") and "PrivateDevices" in sandbox.directives:
        return [
            Cause("PrivateDevices", f"{path} is hidden from it", 'Only hardening = "basic" or "off" shows devices.')
        ]
    if certain and path.startswith("/run/user/") and "ProtectHome" in sandbox.directives:
        fix = 'Only hardening = "basic" or "off" shows it, and lets the service act as the account.'
        return [Cause("ProtectHome", f"{path} is hidden from it", fix)]
    if "ProtectHome" in sandbox.directives and hidden(path):
        parent = path.rpartition("/")[0]
        # Not a whole home directory, which may not be shown.
        place = parent if parent.count("/") > 2 else path
        fix = f'readable_paths = ["{place}"] shows it.'
        return [Cause("ProtectHome", f"{path} exists, but is hidden from it", fix)]
    return []


def _some_call(sandbox: Sandbox) -> list[Cause]:
    """Return a refusal that nothing explains further."""
    if "SystemCallFilter" not in sandbox.directives:
        return []
    sentence = "a system call was refused, perhaps one that its sandbox does not allow"
    fix = 'To find out, set hardening = "off" once.'
    if "chown" not in sandbox.calls:
        fix = f"{_DEFAULT} allows chown and setuid to itself."
    return [Cause("SystemCallFilter", sentence, fix)]


def _hidden_program(service: Service, sandbox: Sandbox, hidden: Callable[[str], bool]) -> list[Cause]:
    commands = (service.start_command, service.pre_start)
    programs = [words[0] for words in commands if words and words[0].startswith("/")]
    return [cause for program in programs for cause in _absent(program, sandbox, hidden, True)]


def _path_in(line: str) -> str:
    """Return the path that an error line names: the last one in it that is quoted, or else the last one."""
    quoted = re.findall(rf"['\"`]{_PATH}['\"`]", line)
    plain = re.findall(rf"(?<![\w/.]){_PATH}", line)
    found = quoted or plain
    return str(found[-1]).rstrip(".") if found else ""
