"""The units of the sockets that systemd holds for helmd."""

import os
import socket
import time
from pathlib import Path

import pytest

from helmd.health import listeners
from helmd.model.config.settings import Settings
from helmd.model.layout import Layout, layout
from helmd.model.suite.names import HELMD_UNIT, HTTP_SOCKET_UNIT, SOCKET_UNIT, SOCKET_UNITS
from helmd.systemd.installed import is_ours, verify_units
from helmd.systemd.render import render_sockets, tcp_stream, template_environment
from tests.unit import systemd_syntax as syntax

TOP = Path(__file__).resolve().parents[2]
TEMPLATES = template_environment(TOP / "units")


@pytest.fixture
def account(tmp_path: Path) -> Layout:
    return layout({"XDG_RUNTIME_DIR": str(tmp_path)}, tmp_path, os.getuid(), TOP)


def values(text: str, key: str) -> list[str]:
    return [value for _, name, value in syntax.assignments(text) if name == key]


@pytest.mark.parametrize(
    ("listen", "stream"),
    [
        ("127.0.0.1", "127.0.0.1:5004"),
        ("0.0.0.0", "0.0.0.0:5004"),
        ("::1", "[::1]:5004"),
        ("::", "[::]:5004"),
        ("localhost", None),
        ("fe80::1%eth0", None),
        ("127.0.0.1\nExecStartPre=x", None),
    ],
)
def test_an_address_is_listened_on_by_systemd_and_a_name_is_not(listen: str, stream: str | None) -> None:
    assert tcp_stream(listen, 5004) == stream


def test_both_are_rendered_from_the_settings(account: Layout) -> None:
    units = render_sockets(account, Settings(listen="127.0.0.1", port=6004), TEMPLATES)
    assert tuple(units) == SOCKET_UNITS
    assert values(units[SOCKET_UNIT], "ListenStream") == [str(account.socket)]
    assert values(units[SOCKET_UNIT], "SocketMode") == ["0600"]
    assert values(units[SOCKET_UNIT], "DirectoryMode") == ["0700"]
    assert values(units[HTTP_SOCKET_UNIT], "ListenStream") == ["127.0.0.1:6004"]
    for text in units.values():
        assert is_ours(text)
        assert "\n[X-HiveMatrix]\n" in text, "what a purge of the package looks for"
        assert values(text, "Service") == [HELMD_UNIT, "helm"]
        assert values(text, "TriggerLimitIntervalSec") == ["0"], "a crash must not close the sockets"
    assert list(render_sockets(account, Settings(listen="localhost"), TEMPLATES)) == [SOCKET_UNIT]


def test_systemd_has_nothing_to_say(account: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    units = render_sockets(account, Settings(listen="::1"), TEMPLATES)
    assert not verify_units({**units, HELMD_UNIT: "[Service]\nExecStart=/bin/true\n"})


def test_helmd_wants_them_and_does_not_need_them() -> None:
    unit = (TOP / "packaging/systemd/user/helmd.service").read_text()
    wanted = " ".join(values(unit, "Wants")).split()
    assert set(SOCKET_UNITS) <= set(wanted)
    for strong in ("Requires", "BindsTo", "Requisite"):
        assert not values(unit, strong)
    assert not values(unit, "RestartPreventExitStatus"), "it would end for good, and be triggered again at once"


def test_a_port_is_held_by_helmd_rather_than_by_the_manager_that_made_its_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
        pid = os.fork()
        if not pid:
            time.sleep(600)
            os._exit(0)
        try:
            for manager, other in ((os.getpid(), pid), (pid, os.getpid())):
                units = {manager: listeners.USER_MANAGER, other: HELMD_UNIT}
                monkeypatch.setattr(listeners, "_unit_of", units.__getitem__)
                holder = listeners.holder_of(port)
                assert holder is not None and (holder.pid, holder.unit) == (other, HELMD_UNIT)
            monkeypatch.setattr(listeners, "_unit_of", lambda pid: listeners.USER_MANAGER)
            holder = listeners.holder_of(port)
            assert holder is not None and holder.unit == listeners.USER_MANAGER
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
