"""Whose line is it, with the real journald: of processes that claim another service's name, or that end at once."""

import secrets
import shlex

import pytest

from tests.system.booted import Sandbox, until

PROCESSES = 150
_NATIVE = "from systemd import journal; journal.send({text!r}, {field}={value!r})"


def run_in_unit(box: Sandbox, unit: str, script: str) -> None:
    box(
        "systemd-run",
        "--user",
        "--quiet",
        "--wait",
        "--collect",
        f"--unit={unit}",
        "/bin/sh",
        "-c",
        script,
        timeout=120,
    )
    box("journalctl", "--sync", root=True)


def rows(box: Sandbox, tag: str) -> list[tuple[str, bool]]:
    """The service of each line with TAG, and whether the row says that it is not verified."""
    found = box.sql(
        "SELECT service_name || ' ' || coalesce(context ? '_unverified', false) FROM log_entries"
        f" WHERE message LIKE '{tag} %'"
    )
    return [(service, unverified == "true") for service, unverified in (line.split() for line in found.splitlines())]


def named_by_journald(box: Sandbox, tag: str) -> int:
    """How many lines with TAG journald has found the unit of."""
    shown = box("journalctl", "--user", "-q", "-o", "cat", "--output-fields=_SYSTEMD_USER_UNIT", "-g", f"^{tag} ").out
    return len(shown.split())


def wait_for_end(box: Sandbox, tag: str) -> None:
    """Until what was printed before is stored: lines of the same account are read in their order."""
    box("systemd-run", "--user", "--quiet", "--wait", "--collect", f"--unit=hivematrix-{tag}", "/bin/sh", "-c",
        f"echo {tag} end; sleep 1")  # fmt: skip
    until(lambda: any(service == tag for service, _ in rows(box, tag)), 60)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kind", ["identifier", "native", "subject"])
def test_no_line_of_another_unit_counts_as_the_service_it_names(demo: Sandbox, kind: str, inside: bool) -> None:
    tag = f"x{secrets.token_hex(3)}"
    native = {
        "native": _NATIVE.format(text=f"{tag} line", field="SYSLOG_IDENTIFIER", value="hivematrix-core"),
        "subject": _NATIVE.format(text=f"{tag} line", field="USER_UNIT", value="hivematrix-core.service"),
    }
    command = f"/usr/bin/python3 -c {shlex.quote(native[kind])}" if kind in native else (
        f"systemd-cat -t hivematrix-core echo {tag} line"
    )  # fmt: skip
    count = PROCESSES if kind == "identifier" else 30
    unit = f"hivematrix-{tag}" if inside else f"outsider-{tag}"
    run_in_unit(demo, unit, f"for i in $(seq {count}); do {command}; done")
    wait_for_end(demo, f"e{tag}")
    found, named = rows(demo, tag), named_by_journald(demo, tag)
    assert ("core", False) not in found, "no line of another unit counts as one of core without saying so"
    assert len(found) == (count if inside else count - named), "nothing else is lost"
    assert found.count((tag, False)) >= (named if inside else 0)


def test_lines_of_a_service_that_prints_and_exits_are_all_under_its_name(demo: Sandbox) -> None:
    tag = f"y{secrets.token_hex(3)}"
    for _ in range(20):
        run_in_unit(
            demo,
            f"hivematrix-{tag}",
            f"exec systemd-cat -t hivematrix-{tag} sh -c 'for i in 1 2 3; do echo {tag} $i; done'",
        )
    wait_for_end(demo, f"e{tag}")
    found = rows(demo, tag)
    assert len(found) == 60 and {service for service, _ in found} == {tag}
