"""What the documents say exists: files, definitions, links, packages, and what hardening prevents."""

import re
import subprocess
from pathlib import Path

import click
import pytest

from helmd.cli.main import ALIASES, helmctl
from helmd.model.units.hardening import DIRECTIVES, PROFILES, Directive
from tests.system.test_hardening import EFFECTS, LEVELS

TOP = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`((?:helmd|units|scripts|tests|packaging|debian|docs)/[\w./-]*)(?:: (\w+))?`")


def tracked(*patterns: str) -> list[str]:
    """Return files of the repository, those that are not committed yet included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({name for name in listed if (TOP / name).exists()})


DOCUMENTS = tracked("*.md")


def anchors(text: str) -> set[str]:
    """Return the fragments that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document: str) -> None:
    text = (TOP / document).read_text()
    missing = []
    for path, definition in NAMED.findall(text):
        place = TOP / path
        if not place.exists():
            missing.append(path)
        elif definition:
            defined = rf"^(?:async )?(?:def|class) {definition}\b"
            if not re.search(defined, place.read_text(), re.MULTILINE):
                missing.append(f"{definition} in {path}")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        place = (TOP / document).parent / path if path else TOP / document
        if not place.exists() or (anchor and anchor not in anchors(place.read_text())):
            missing.append(target)
    assert not missing


def test_every_document_of_the_project_is_found() -> None:
    assert {"README.md", "HACKING.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"} <= set(DOCUMENTS)
    assert {"docs/api.md", "docs/architecture.md", "packaging/README.md"} <= set(DOCUMENTS)


def test_every_document_is_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        document = waiting.pop()
        if document in reached:
            continue
        reached.add(document)
        for target in re.findall(r"\]\(([^)#:]+\.md)\)", (TOP / document).read_text()):
            waiting.append(str(((TOP / document).parent / target).resolve().relative_to(TOP)))
    assert set(DOCUMENTS) - reached == set()


def test_no_file_cites_what_is_not_in_the_repository() -> None:
    """Comments name documents of the repository; names in capitals are those of files."""
    cited = re.compile(r"\b(SPEC|DESIGN|FACTS|MODELS|DEVELOPERS)\b|\bUI\.md\b")
    wrong = [
        f"{name}: {found.group()}"
        for name in tracked("*.py", "*.md", "*.scd", "*.j2", "*.sql", "*.toml", "scripts/*")
        if name != "tests/unit/test_documents.py"
        for found in cited.finditer((TOP / name).read_text())
    ]
    assert not wrong


def test_tests_that_scripts_name_exist() -> None:
    named = {
        found
        for name in tracked("scripts/*", ".ci/*")
        for found in re.findall(r"\btests/[\w/]+(?:\.py)?", (TOP / name).read_text())
    }
    assert named
    assert [path for path in sorted(named) if not (TOP / path).exists()] == []


def test_commands_that_documents_name_exist() -> None:
    """`helmctl WORD` in a code span or block of a document."""
    known = {*helmctl.list_commands(click.Context(helmctl)), *ALIASES}
    wrong = []
    for document in DOCUMENTS:
        for word in re.findall(r"(?:^|`|sudo )helmctl ([a-z][a-z-]*)\b", (TOP / document).read_text(), re.MULTILINE):
            if word not in known:
                wrong.append(f"{document}: helmctl {word}")
    assert not wrong


def test_every_package_is_in_hacking() -> None:
    text = (TOP / "HACKING.md").read_text()
    packages = [path.parent.name for path in (TOP / "helmd").glob("*/__init__.py")]
    assert packages
    assert [package for package in packages if f"`helmd/{package}/`" not in text] == []


HARDENED = {
    "write to /usr, /etc and /var": ("look_write_usr", "look_write_etc", "look_write_var"),
    "write to the account's home outside its own directory": ("write_home",),
    "write to its own directory and `writable_paths`": ("look_write_own_directory", "look_write_writable_path"),
    "read the account's secrets": ("look_read_own_secrets",),
    "read other services' files": ("look_read_other_service",),
    "read the account's SSH keys": ("look_read_ssh_keys",),
    "read other accounts' readable files": ("read_other_file",),
    "read other processes' environment": ("look_read_core_environment", "read_other_environ"),
    "connect to the account's D-Bus": ("look_user_bus",),
    "connect to helm.sock": ("look_helm_socket",),
    "use device files": ("look_see_devices",),
    "change its own control group": ("write_cgroup",),
    "set a setuid bit": ("set_setuid_bit",),
    "make namespaces": ("unshare_user", "unshare_network"),
    "listen on a port of this host": ("listen_on_loopback",),
    "mount file systems": ("mount",),
    "read /etc/shadow": ("read_shadow",),
    "read the journal, and so what others print": ("read_journal",),
    "print to the journal": ("send_to_journal",),
    "write to a home directory of its own": ("look_write_own_home",),
    "see the home directories of other services": ("look_see_home_of_another",),
    "use shared memory (/dev/shm) of others": ("look_use_shared_memory_of_others",),
    "gain rights by a setuid program": ("gain_rights",),
    "list network interfaces": ("look_list_interfaces",),
    "run code that it wrote to memory": ("map_writable_code",),
    "chown and setuid to its own account": ("look_chown_to_itself", "look_setuid_to_itself"),
}
"""The rows of SECURITY.md's table, and the attempts in tests/system/test_hardening.py that show them."""


BY_DIRECTIVE = {
    "NoNewPrivileges": ("gain_rights",),
    "RestrictNamespaces": ("unshare_user", "unshare_network"),
    "RestrictRealtime": ("take_a_processor",),
    "RestrictSUIDSGID": ("set_setuid_bit",),
    "LockPersonality": ("change_personality",),
    "RestrictAddressFamilies": ("rare_socket",),
    "SystemCallArchitectures": ("call_32_bit",),
    "SystemCallFilter": ("trace",),
    "MemoryDenyWriteExecute": ("map_writable_code",),
    "PrivateUsers": ("look_read_core_environment", "read_other_environ"),
    "ProtectSystem": ("look_write_usr", "look_write_etc", "look_write_var"),
    "ProtectHome": (
        "read_other_home",
        "look_read_root_home",
        "look_user_bus",
        "look_helm_socket",
        "look_read_ssh_keys",
    ),
    "PrivateTmp": ("look_see_tmp_of_others",),
    "InaccessiblePaths": ("read_journal",),
    "PrivateDevices": ("look_see_devices",),
    "ProtectClock": ("set_clock",),
    "ProtectControlGroups": ("write_cgroup",),
    "ProtectHostname": ("set_hostname",),
    "ProtectKernelModules": ("load_module",),
    "ProtectKernelTunables": ("write_kernel_setting",),
}
"""The attempts in tests/system/test_hardening.py that show what a directive prevents."""

IN_STATUS = {"SystemCallErrorNumber", "KeyringMode", "UMask", "CapabilityBoundingSet", "AmbientCapabilities"}
"""Directives that change what a process has, which that test reads from /proc, not what it can do."""


@pytest.mark.parametrize("directive", DIRECTIVES, ids=lambda directive: directive.name)
def test_each_directive_was_tried_from_inside(directive: Directive) -> None:
    """What the manual says that it prevents fails in the profiles that have it, and works in the others."""
    if directive.name in IN_STATUS:
        return
    for attempt in BY_DIRECTIVE[directive.name]:
        allowed = dict(zip(LEVELS, EFFECTS[attempt], strict=True))
        if directive.backstop:
            assert not any(allowed.values()), attempt
        else:
            assert allowed == {profile: profile not in directive.profiles for profile in PROFILES}, attempt


def test_what_hardening_prevents_is_what_was_tried() -> None:
    table = (TOP / "SECURITY.md").read_text().partition("| a service can |")[2].partition("\n\n")[0]
    head, _, *rows = table.splitlines()
    assert [cell.strip() for cell in head.split("|") if cell.strip()] == list(LEVELS)
    stated = {}
    for row in rows:
        what, *allowed = (cell.strip() for cell in row.strip("|").split("|"))
        stated[what] = tuple(cell == "yes" for cell in allowed)
    assert set(stated) == set(HARDENED)
    for what, attempts in HARDENED.items():
        assert {EFFECTS[attempt] for attempt in attempts} == {stated[what]}, what
