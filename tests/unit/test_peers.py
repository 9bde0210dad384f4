"""Whose requests may change something: who is at the other end of a connection, and what is refused of whom."""

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from helmd.health import peers as peers_module
from helmd.health.peers import Peers
from helmd.health.sock_diag import CLOSE_WAIT, ESTABLISHED, TcpSocket, socket_between
from helmd.model.config.settings import Settings, read_settings_files
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import ConfigurationError
from helmd.model.identity.group_unit import GroupUnit, unit_of_group
from helmd.model.identity.peer import Peer, Place
from helmd.web.auth.peers import Forwarded, LoginNeededError, PeerRefusedError, Trust, check_peer, forwarded
from helmd.web.auth.roles import RECENT_LOGIN_SECONDS, Access, Identity, Role, Via
from tests.waiting import WITHIN

USER = "/user.slice/user-1000.slice"
MANAGER = f"{USER}/user@1000.service"


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        (f"{MANAGER}/app.slice/hivematrix-codex.service", GroupUnit("hivematrix-codex.service", 1000)),
        (f"{MANAGER}/hivematrix-codex.service", GroupUnit("hivematrix-codex.service", 1000)),
        (f"{MANAGER}/app.slice/app-x.slice/a.service", GroupUnit("a.service", 1000)),
        (f"{MANAGER}/app.slice/a.service/b.scope", GroupUnit("a.service", 1000)),
        (f"{MANAGER}/app.slice/a.service/user@7.service/b.scope", GroupUnit("a.service", 1000)),
        (f"{MANAGER}/app.slice/a.service/app.slice/b.scope", GroupUnit("a.service", 1000)),
        (f"{MANAGER}/app.slice/run-r1.scope", GroupUnit("run-r1.scope", 1000)),
        (f"{MANAGER}/init.scope", GroupUnit("init.scope", 1000)),
        (MANAGER, GroupUnit("user@1000.service", None)),
        (f"{USER}/session-3.scope", GroupUnit("session-3.scope", None)),
        (f"{USER}/session-3.scope/user@1000.service/a.service", GroupUnit("session-3.scope", None)),
        ("/system.slice/cron.service", GroupUnit("cron.service", None)),
        ("/system.slice/system-x.slice/x@1.service", GroupUnit("x@1.service", None)),
        ("/user.slice/user-1001.slice/user@1001.service/app.slice/a.service", GroupUnit("a.service", 1001)),
        ("/system.slice/user@x.service/a.service", GroupUnit("user@x.service", None)),
        ("/_odd.slice/_a.service", GroupUnit("a.service", None)),
        ("/init.scope", GroupUnit("init.scope", None)),
        ("/docker/0123abcd", None),
        ("/app.slice", None),
        ("/../../box", None),
        ("/", None),
        ("", None),
    ],
)
def test_the_unit_of_a_control_group(path: str, unit: GroupUnit | None) -> None:
    assert unit_of_group(path) == unit


@contextmanager
def connected(
    family: socket.AddressFamily = socket.AF_INET, client: socket.AddressFamily | None = None
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield a client's socket and the accepted one."""
    address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with (
        closing(socket.create_server((address, 0), family=family)) as server,
        closing(socket.socket(client or family)) as made,
    ):
        port = server.getsockname()[1]
        made.connect(("::ffff:127.0.0.1" if client == socket.AF_INET6 and family == socket.AF_INET else address, port))
        accepted, _ = server.accept()
        with accepted:
            yield made, accepted


def ends(connection: socket.socket) -> tuple[str, int, str, int]:
    return (*connection.getsockname()[:2], *connection.getpeername()[:2])


@pytest.mark.parametrize(
    ("family", "client"),
    [(socket.AF_INET, None), (socket.AF_INET6, None), (socket.AF_INET, socket.AF_INET6)],
    ids=["IPv4", "IPv6", "IPv4 by an IPv6 socket"],
)
def test_the_kernel_names_the_socket_at_the_other_end(
    family: socket.AddressFamily, client: socket.AddressFamily | None
) -> None:
    with connected(family, client) as (made, accepted):
        found = socket_between(*accepted.getpeername()[:2], *accepted.getsockname()[:2])
        assert found is not None
        assert (found.inode, found.state, found.uid) == (os.fstat(made.fileno()).st_ino, ESTABLISHED, os.getuid())
        assert found.control_group is not None


def test_a_listening_socket_is_at_no_end() -> None:
    """The kernel answers with it where no connection fits."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address, port = server.getsockname()
        assert socket_between(address, port, "127.0.0.1", 9) is None


def with_paths(monkeypatch: pytest.MonkeyPatch, **paths: str) -> None:
    """Have every control group of this machine stand for one at a path: ``own`` for that of this process."""
    number = own_number()
    groups = [(paths["own"], number)] if "own" in paths else []
    monkeypatch.setattr(peers_module, "every_control_group", lambda: groups)


def own_number() -> int:
    with connected() as (made, _):
        found = socket_between(*ends(made))
        assert found is not None and found.control_group is not None
        return found.control_group


@pytest.mark.parametrize(
    ("path", "peer"),
    [
        (
            f"{MANAGER}/app.slice/hivematrix-codex.service",
            Peer(Place.HERE, "127.0.0.1", "hivematrix-codex.service", True),
        ),
        (f"{USER}/session-3.scope", Peer(Place.HERE, "127.0.0.1", "session-3.scope", False)),
        ("/user.slice/user-7.slice/user@7.service/a.service", Peer(Place.HERE, "127.0.0.1", "a.service", False)),
        ("/elsewhere", Peer(Place.UNKNOWN, "127.0.0.1")),
    ],
)
def test_the_unit_at_the_other_end(monkeypatch: pytest.MonkeyPatch, path: str, peer: Peer) -> None:
    with_paths(monkeypatch, own=path)
    for client in (socket.AF_INET, socket.AF_INET6):
        with connected(socket.AF_INET, client) as (_, accepted):
            assert Peers(1000).peer(accepted) == peer


def test_a_control_group_that_is_gone_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a service that ends right after its request: nobody else's, but not to be known."""
    with_paths(monkeypatch)
    with connected() as (_, accepted):
        assert Peers(1000).peer(accepted).place is Place.UNKNOWN


def test_a_client_that_closed_its_socket_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with_paths(monkeypatch, own=f"{USER}/session-3.scope")
    with connected() as (made, accepted):
        made.close()
        deadline = time.monotonic() + WITHIN
        # Until the kernel has acknowledged that, it still knows who had it.
        while (peer := Peers(1000).peer(accepted)).place is not Place.UNKNOWN:
            assert peer.unit == "session-3.scope" and time.monotonic() < deadline
            time.sleep(0.001)


def test_a_client_that_only_sends_no_more_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with_paths(monkeypatch, own=f"{USER}/session-3.scope")
    with connected() as (made, accepted):
        made.shutdown(socket.SHUT_WR)
        assert Peers(1000).peer(accepted).unit == "session-3.scope"


def test_a_client_that_was_reset_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with_paths(monkeypatch, own=f"{USER}/session-3.scope")
    with connected() as (made, accepted):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.close()
        assert Peers(1000).peer(accepted).place is Place.UNKNOWN


def test_a_socket_that_is_only_connecting_is_not_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process can use the ends of a connection again that its client has closed."""
    with_paths(monkeypatch, own=f"{USER}/session-3.scope")
    syn_sent = 2

    def connecting(*given: object) -> TcpSocket:
        return TcpSocket("127.0.0.1", 1, "127.0.0.1", 2, syn_sent, 0, 7, own_number())

    with connected() as (_, accepted):
        monkeypatch.setattr(peers_module, "socket_between", connecting)
        assert Peers(1000).peer(accepted).place is Place.UNKNOWN


@pytest.mark.parametrize(("own", "place"), [(True, Place.UNKNOWN), (False, Place.ELSEWHERE)])
def test_without_a_socket_here_the_address_decides(monkeypatch: pytest.MonkeyPatch, own: bool, place: Place) -> None:
    monkeypatch.setattr(peers_module, "socket_between", lambda *_: None)
    monkeypatch.setattr(peers_module, "_is_own", lambda *_: own)
    with connected() as (_, accepted):
        assert Peers(1000).peer(accepted) == Peer(place, "127.0.0.1")


@pytest.mark.parametrize(
    ("address", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False)],
)
def test_addresses_of_this_host(address: str, own: bool) -> None:
    assert peers_module._is_own(address, 0) is own


def test_where_the_kernel_does_not_say_the_control_group_processes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels before 5.9; and those before 5.15 say the root for all, once net_cls is in use."""
    mine = f"{USER}/session-3.scope"
    monkeypatch.setattr(peers_module, "control_group_of", lambda _: mine)
    with connected() as (made, accepted):
        inode = os.fstat(made.fileno()).st_ino
        for number, groups in ((None, []), (5, [("/", 5)])):
            answer = TcpSocket("127.0.0.1", 1, "127.0.0.1", 2, CLOSE_WAIT, 0, inode, number)
            monkeypatch.setattr(peers_module, "socket_between", lambda *_, answer=answer: answer)
            monkeypatch.setattr(peers_module, "every_control_group", lambda groups=groups: groups)
            assert Peers(1000).peer(accepted).unit == "session-3.scope"
            nobody = answer._replace(inode=1)
            monkeypatch.setattr(peers_module, "socket_between", lambda *_, answer=nobody: answer)
            assert Peers(1000).peer(accepted).place is Place.UNKNOWN


def test_without_sock_diag_nobody_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(peers_module, "socket_between", refused)
    with connected() as (_, accepted):
        assert Peers(1000).peer(accepted).place is Place.UNKNOWN


def test_the_peer_of_a_unix_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        peers_module, "control_group_of", lambda pid: f"{USER}/session-3.scope" if pid == os.getpid() else ""
    )
    one, other = socket.socketpair()
    with one, other:
        assert Peers(1000).peer(one) == Peer(Place.HERE, "", "session-3.scope")


def settings(text: str) -> Settings:
    return read_settings_files([ConfigSource("helm.toml", text)])


TRUST = Trust.of(
    settings(
        '[http]\ntrusted_units = ["backup.service", "app-firefox@*.service", "hivematrix-ops.service"]\n'
        'trusted_proxies = ["192.0.2.7", "2001:db8::/64"]'
    )
)


def unit(name: str, owned: bool = True) -> Peer:
    return Peer(Place.HERE, "127.0.0.1", name, owned)


def far(address: str = "198.51.100.3") -> Peer:
    return Peer(Place.ELSEWHERE, address)


UNKNOWN = Peer(Place.UNKNOWN, "127.0.0.1")
CODEX, NEXUS, SESSION = (
    unit("hivematrix-codex.service"),
    unit("hivematrix-nexus.service"),
    unit("session-3.scope", False),
)
PROXY = far("192.0.2.7")
CHECKED, ANY = Access(Role.ADMIN, checked=True), Access(Role.ADMIN)
OWNER = Access(Role.ADMIN, checked=True, recent_login=True)
NOW = 1_000_000.0


def caller(via: Via, login_at: float | None = None) -> Identity:
    return Identity("amira", Role.ADMIN, via, login_at=login_at)


def outcome(via: Via, peer: Peer, access: Access = CHECKED, *, tls: bool = False, login_at: float | None = None) -> str:
    """Return the result of a request: ``passes``, or the code of the error."""
    try:
        check_peer(caller(via, login_at), access, peer, TRUST, tls=tls, now=NOW)
    except (PeerRefusedError, LoginNeededError) as error:
        assert error.sentence and error.hint
        return error.code
    return "passes"


@pytest.mark.parametrize(
    ("peer", "token", "session", "machine"),
    [
        (SESSION, "passes", "passes", "passes"),
        (unit("run-r1.scope"), "passes", "passes", "passes"),
        (unit("cron.service", False), "passes", "passes", "passes"),
        (unit("hivematrix-codex.service", False), "passes", "passes", "passes"),
        (CODEX, "peer_refused", "peer_refused", "peer_refused"),
        (NEXUS, "passes", "peer_refused", "peer_refused"),
        (unit("hivematrix-job-1.service"), "peer_refused", "peer_refused", "peer_refused"),
        (unit("helmd.service"), "peer_refused", "peer_refused", "peer_refused"),
        (unit("run-r1.service"), "peer_refused", "peer_refused", "peer_refused"),
        (unit("init.scope"), "peer_refused", "peer_refused", "peer_refused"),
        (unit("hivematrix-nexus.scope.service"), "peer_refused", "peer_refused", "peer_refused"),
        (unit("backup.service"), "passes", "passes", "passes"),
        (unit("app-firefox@1f.service"), "passes", "passes", "passes"),
        (unit("app-other@1f.service"), "peer_refused", "peer_refused", "peer_refused"),
        (unit("hivematrix-ops.service"), "passes", "peer_refused", "peer_refused"),
        (far(), "peer_refused", "peer_refused", "passes"),
        (PROXY, "passes", "peer_refused", "passes"),
        (far("2001:db8::5"), "passes", "peer_refused", "passes"),
        (far("2001:db8:1::5"), "peer_refused", "peer_refused", "passes"),
        (UNKNOWN, "peer_refused", "peer_refused", "peer_refused"),
        (Peer(Place.UNKNOWN, "192.0.2.7"), "peer_refused", "peer_refused", "peer_refused"),
    ],
    ids=str,
)
def test_who_may_change_something(peer: Peer, token: str, session: str, machine: str) -> None:
    found = [outcome(via, peer) for via in ("token", "session", "machine", "socket")]
    assert found == [token, session, machine, "passes"]


def test_a_session_from_another_host_needs_tls() -> None:
    assert [outcome("session", far(), tls=tls) for tls in (False, True)] == ["peer_refused", "passes"]


def test_reading_is_for_all_but_machine_tokens_and_sessions_that_services_of_the_suite_send() -> None:
    for peer in (CODEX, NEXUS, far(), UNKNOWN):
        assert outcome("token", peer, ANY) == "passes"
    assert [outcome("session", peer, ANY) for peer in (CODEX, NEXUS)] == ["peer_refused"] * 2
    assert [outcome("session", peer, ANY) for peer in (UNKNOWN, SESSION, unit("run-r1.service"))] == ["passes"] * 3
    assert [outcome("machine", peer, ANY) for peer in (CODEX, NEXUS, UNKNOWN)] == ["peer_refused"] * 3
    assert [outcome("machine", peer, ANY) for peer in (SESSION, far(), unit("run-r1.service"))] == ["passes"] * 3


@pytest.mark.parametrize(
    ("via", "login_at", "result"),
    [
        ("socket", None, "passes"),
        ("session", NOW - 1, "passes"),
        ("session", NOW - RECENT_LOGIN_SECONDS, "passes"),
        ("session", NOW - RECENT_LOGIN_SECONDS - 1, "login_needed"),
        ("session", None, "login_needed"),
        ("token", None, "login_needed"),
        ("machine", None, "login_needed"),
    ],
)
def test_what_needs_a_recent_login(via: Via, login_at: float | None, result: str) -> None:
    assert outcome(via, SESSION, OWNER, login_at=login_at) == result


def test_nothing_that_needs_a_recent_login_passes_through_the_gateway() -> None:
    assert outcome("token", NEXUS, OWNER) == "login_needed"
    assert outcome("machine", NEXUS, OWNER) == "peer_refused"


def test_refusals_say_how_to_configure_it() -> None:
    for peer, setting in ((CODEX, "trusted_units"), (far(), "trusted_proxies"), (UNKNOWN, "trusted_units")):
        with pytest.raises(PeerRefusedError) as caught:
            check_peer(caller("token"), CHECKED, peer, TRUST, tls=False, now=NOW)
        assert f"http.{setting} in helm.toml" in caught.value.hint
        assert (peer.unit or peer.address) in caught.value.sentence


HEADERS = {"X-Forwarded-For": "203.0.113.1, 198.51.100.9", "X-Forwarded-Proto": "https"}


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        (NEXUS, Forwarded("198.51.100.9", "https")),
        (PROXY, Forwarded("198.51.100.9", "https")),
        (replace(SESSION, address="192.0.2.7"), Forwarded("198.51.100.9", "https")),
        (replace(CODEX, address="192.0.2.7"), Forwarded()),
        (CODEX, Forwarded()),
        (SESSION, Forwarded()),
        (far(), Forwarded()),
        (UNKNOWN, Forwarded()),
    ],
    ids=str,
)
def test_forwarded_headers_are_believed_from_proxies_alone(peer: Peer, found: Forwarded) -> None:
    assert forwarded(HEADERS, peer, TRUST) == found


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Forwarded-For": "x", "X-Forwarded-Proto": "gopher"}, {"X-Forwarded-For": "1.2.3.4,\x1b[2J"}],
)
def test_forwarded_headers_that_say_nothing(headers: dict[str, str]) -> None:
    assert forwarded(headers, NEXUS, TRUST) == Forwarded()


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ('trusted_units = "backup.service"', "list of units"),
        ('trusted_units = ["backup"]', "backup.service"),
        ('trusted_units = ["*.service"]', "names of services"),
        ('trusted_units = ["a b.service"]', "names of services"),
        ('trusted_units = ["../a.service"]', "names of services"),
        ("trusted_units = [1]", "names of services"),
        ('trusted_proxies = "192.0.2.7"', "list of addresses"),
        ('trusted_proxies = ["proxy.example"]', "IP addresses"),
        ('trusted_proxies = ["192.0.2.7/24"]', "IP addresses"),
        ('trusted_proxies = ["0.0.0.0/0"]', "all addresses"),
        ('trusted_proxies = ["::/0"]', "all addresses"),
        ("trusted_proxies = [7]", "IP addresses"),
    ],
)
def test_settings_that_trust_too_much_or_nobody(setting: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(f"[http]\n{setting}")
    assert why in str(caught.value.faults[0])
