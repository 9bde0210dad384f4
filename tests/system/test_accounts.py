"""Commands as another account of the machine runs them, from a shell of another, from cron, in any locale."""

from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox

AS_HIVE = ("runuser", "-u", "hive", "--")


@pytest.fixture
def visitor(demo: Sandbox) -> Iterator[str]:
    """An account without a suite and without a user manager."""
    demo("useradd", "--create-home", "visitor", root=True)
    yield "visitor"
    demo("userdel", "--remove", "visitor", root=True, check=False)


@pytest.mark.parametrize(
    "environment",
    [
        (),
        ("XDG_RUNTIME_DIR=/run/user/0", "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/0/bus", "HOME=/root"),
        ("-i", "PATH=/usr/bin:/bin", "HOME=/home/hive", "SHELL=/bin/sh"),
        ("XDG_DATA_HOME=/tmp/elsewhere", "XDG_CONFIG_HOME=/tmp/elsewhere"),
    ],
    ids=["runuser", "root's", "cron", "shell only"],
)
def test_the_suite_is_found_from_any_shell(demo: Sandbox, environment: tuple[str, ...]) -> None:
    done = demo(*AS_HIVE, "env", *environment, "helmctl", "status", root=True)
    assert "core " in done.out and not done.err, done.text
    assert "Nothing would change." in demo(*AS_HIVE, "env", *environment, "helmctl", "diff", root=True).err
    found = demo(*AS_HIVE, "env", *environment, "helmctl", "doctor", root=True).out
    assert "bad " not in found and "unknown " not in found, found
    assert demo(*AS_HIVE, "env", *environment, "helmctl", "logs", "-n", "1", "core", root=True).out


def test_another_account_has_no_suite(demo: Sandbox, visitor: str) -> None:
    done = demo("runuser", "-u", visitor, "--", "helmctl", "status", root=True, check=False)
    assert done.code == 1 and f"{visitor} has no suite here" in done.err
    done = demo("runuser", "-u", visitor, "--", "helmctl", "--account", "hive", "status", root=True, check=False)
    assert done.code == 77 and "only root" in done.err


def test_no_locale_makes_a_traceback(demo: Sandbox) -> None:
    demo("localedef", "-i", "en_US", "-f", "ISO-8859-1", "en_US.ISO-8859-1", root=True)
    for locale in ("LC_ALL=en_US.ISO-8859-1", "LC_ALL=C", "LC_ALL=POSIX", "--unset=LANG"):
        for command in ("deps", "doctor", "status", "apply", "diff", "start codex", "why core", "--help"):
            done = demo(*AS_HIVE, "env", locale, "helmctl", *command.split(), root=True)
            assert "Traceback" not in done.text and "\ufffd" not in done.text, f"{locale} {command}: {done.text}"


def test_setup_by_root_sets_up_the_account_it_acts_for(demo: Sandbox) -> None:
    demo("sh", "-c", "mkdir -p /etc/hivematrix; echo hive > /etc/hivematrix/account", root=True)
    try:
        done = demo("helmctl", "setup", root=True)
        assert "Set-up is complete" in done.err
    finally:
        demo("rm", "/etc/hivematrix/account", root=True)
