"""The security audit's facts: sockets and files of this machine, accepted findings, and audits as helmd runs them."""

import os
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helmd.files.key_pair import CertificateRequest, ensure_certificate
from helmd.health import socket_table as tables
from helmd.health.socket_table import socket_table
from helmd.model.config.settings import Settings
from helmd.model.errors import BusError, HelmError
from helmd.model.layout import Layout, layout
from helmd.model.security.acceptance import UnknownFindingError
from helmd.model.security.findings import SecurityFinding, security_finding
from helmd.model.security.firewall_state import FirewallState
from helmd.model.security.permissions import FileOwner
from helmd.model.security.report import AuditFacts, audit_reply
from helmd.model.suite.service import Registry, Service
from helmd.operations.configuration.effective import Effective
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.diagnostics.services import ShownCertificate
from helmd.operations.security import audit as audit_module
from helmd.operations.security.acceptances import AcceptanceStore
from helmd.operations.security.audit import audit_now
from helmd.operations.security.certificates import certificate_facts
from helmd.operations.security.files import FileAudit
from helmd.operations.security.host import sshd_files
from helmd.operations.security.sockets import ephemeral_ports, lasting_sockets
from helmd.systemd.bus import Manager

NOW = datetime.now(UTC)
FINDING = security_finding("wide-binding", "core port 5000", "core is open", ["tcp 0.0.0.0:5000"], "bind it")
REPLY = audit_reply(AuditFacts(NOW, 0.5, [FINDING]), 1000)


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    made = layout({}, tmp_path, os.getuid(), Path(__file__).resolve().parents[2])
    made.secrets.mkdir(parents=True, mode=0o700)
    return made


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[dict[str, int | str]]:
    """Yield a socket of each family that this test may make, with where it is."""
    with ExitStack() as stack:

        def made(family: int, kind: int, address: object, protocol: int = 0) -> int:
            one = stack.enter_context(socket.socket(family, kind, protocol))
            one.bind(address)  # type: ignore[arg-type]
            if kind == socket.SOCK_STREAM:
                one.listen()
            return int(one.getsockname()[1]) if family in (socket.AF_INET, socket.AF_INET6) else 0

        path = tmp_path / "shared.sock"
        found: dict[str, int | str] = {
            "tcp": made(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "tcp6": made(socket.AF_INET6, socket.SOCK_STREAM, ("::", 0)),
            "udp": made(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "udp6": made(socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 0)),
            "abstract": f"@audit {os.getpid()}",
            "path": str(path),
        }
        made(socket.AF_UNIX, socket.SOCK_STREAM, f"\0audit {os.getpid()}")
        made(socket.AF_UNIX, socket.SOCK_DGRAM, str(path))
        yield found


def test_sockets_of_every_family_are_in_the_table(opened: dict[str, int | str]) -> None:
    table = socket_table(os.getuid())
    ports = {(end.family, end.address, end.port) for end in table.ends if end.port}
    assert ("tcp", "127.0.0.1", opened["tcp"]) in ports and ("tcp", "::", opened["tcp6"]) in ports
    assert ("udp", "127.0.0.1", opened["udp"]) in ports and ("udp", "::1", opened["udp6"]) in ports
    unix = {end.address: end for end in table.ends if end.family == "unix"}
    assert unix[str(opened["abstract"])].uid == unix[str(opened["path"])].uid == os.getuid()
    assert not unix[str(opened["path"])].shared
    assert table.missing == []


def test_a_unix_socket_to_which_others_can_connect(
    opened: dict[str, int | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(str(opened["path"]))
    path.chmod(0o666)
    monkeypatch.setattr(tables, "_enterable", lambda _: True)
    shared = {end.address for end in socket_table(os.getuid()).ends if end.shared}
    assert str(path) in shared
    monkeypatch.setattr(tables, "_enterable", lambda directory: directory != path.parent)
    assert str(path) not in {end.address for end in socket_table(os.getuid()).ends if end.shared}


def test_a_socket_of_a_family_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the name of its protocol; a socket of UDP that is not bound is in no table either."""
    monkeypatch.setattr(tables, "_HARMLESS", tuple(name for name in tables._HARMLESS if name != "UDP"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM):
        assert "UDP" in [end.address for end in socket_table(os.getuid()).ends if end.family == "other"]
    assert tables._NAMES["AF_VSOCK"] == "vsock"


def written(directory: Path, name: str, text: str) -> None:
    path = directory / "net" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"head\n{text}")


def test_tables_of_families_that_this_machine_may_not_have(tmp_path: Path) -> None:
    inet = "00000000:0000 07 00000000:00000000 00:00000000 00000000 1000 0"
    written(tmp_path, "raw", f" 1: 0100007F:0011 {inet} 71 2 0\n")
    written(tmp_path, "raw6", f" 1: {'0' * 32}:003A {'0' * 32}:0000 {inet.split(' ', 1)[1]} 72 2 0\n")
    written(tmp_path, "packet", "0000 3 3 0003 0 1 0 1000 73\n")
    written(tmp_path, "sctp/eps", " a b 2 10 3 9000 1000 74 127.0.0.1 10.0.0.1\n a b 2 7 3 9001 1000 75 ::\n")
    written(tmp_path, "unix", "0: 2 0 10000 0001 01 76 @a b\n0: 3 0 0 0001 03 77 /run/connected\nbad\n")
    found = {(end.family, end.address, end.port, end.uid) for end, _ in tables._others(tmp_path, {}, 1000)}
    assert found == {
        ("raw", "127.0.0.1 protocol 17", None, 1000),
        ("raw", ":: protocol 58", None, 1000),
        ("packet", "protocol 0x0003", None, 1000),
        ("sctp", "127.0.0.1", 9000, 1000),
        ("unix", "@a b", None, None),
    }


def test_without_sock_diag_the_kernels_tables_are_read(
    opened: dict[str, int | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> Iterator[object]:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(tables, "sockets", refused)
    table = socket_table(os.getuid())
    ports = {(end.family, end.address, end.port) for end in table.ends}
    assert ("tcp", "::", opened["tcp6"]) in ports and ("udp", "127.0.0.1", opened["udp"]) in ports
    assert table.missing == ["tcp sockets: Protocol not supported"]


def test_a_clients_udp_socket_is_none_that_listens(
    opened: dict[str, int | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    assert opened["udp"] in ephemeral_ports()
    lasting = lasting_sockets(os.getuid(), ephemeral_ports())
    assert ("udp", opened["udp"]) in {(end.family, end.port) for end in lasting.ends}, "it is still there later"
    assert len(waited) == 1
    assert lasting_sockets(os.getuid(), range(0)).ends and len(waited) == 1, "nothing to wait for"
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind(("127.0.0.1", 0))
    port = client.getsockname()[1]
    monkeypatch.setattr(time, "sleep", lambda _: client.close())
    lasting = lasting_sockets(os.getuid(), ephemeral_ports())
    assert ("udp", port) not in {(end.family, end.port) for end in lasting.ends}


def audit(directory: Path) -> list[tuple[str, str]]:
    looked = FileAudit(FileOwner(os.getuid(), "hive", (0, os.getgid())))
    looked.tree(directory, "core")
    assert looked.missing == []
    return sorted((each.kind, str(Path(each.subject).relative_to(directory))) for each in looked.findings)


def test_files_of_a_checkout(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name, mode, text in (
        (".flaskenv", 0o644, "A=b"),
        ("keys/jwt.pem", 0o644, "-----BEGIN PRIVATE KEY-----"),
        ("keys/public.pem", 0o644, "-----BEGIN PUBLIC KEY-----"),
        ("instance/core.conf", 0o640, "url = postgresql://u:p@h/d"),
        ("instance/plain.conf", 0o644, "url = http://h/d"),
        ("certs/nexus.key", 0o604, ""),
        ("run.py", 0o666, ""),
        ("tool", 0o4755, ""),
        ("pyenv/pyvenv.cfg", 0o644, ""),
        ("pyenv/lib/test.key", 0o644, ""),
        ("node_modules/x/server.key", 0o644, ""),
        ("data/open/file", 0o644, ""),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    (tmp_path / "data/open").chmod(0o777)
    (tmp_path / "link.key").symlink_to("/etc/passwd")
    assert audit(tmp_path) == [
        ("readable-secret", ".flaskenv"),
        ("readable-secret", "certs/nexus.key"),
        ("readable-secret", "keys/jwt.pem"),
        ("setuid-file", "tool"),
        ("writable-file", "data/open"),
        ("writable-file", "run.py"),
    ], "the group of instance/core.conf is the account's own"
    for path in tmp_path.rglob("*"):
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
    assert audit(tmp_path) == []


def test_an_access_control_list(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_text("")
    path.chmod(0o600)
    entries = ((1, 6, 0xFFFFFFFF), (2, 4, 12345), (4, 0, 0xFFFFFFFF), (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))
    os.setxattr(
        path, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)
    )
    assert audit(tmp_path) == [("readable-secret", "secret.key")]


def test_what_others_can_not_enter_is_said(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "x.key").write_text("")
    (closed / "x.key").chmod(0o644)
    looked = FileAudit(FileOwner(os.getuid(), "hive", (0,)))
    looked.secret(closed / "x.key", "a key")
    looked.secret(closed / "missing", "a key")
    (found,) = looked.findings
    assert found.severity == "medium" and "can't enter" in found.evidence[1]


def test_the_ssh_servers_files_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/1.conf").write_text("PermitRootLogin no\n")
    (tmp_path / "main").write_text(f"Port 22\nInclude {tmp_path}/d/*.conf\nPermitRootLogin yes\n")
    (tmp_path / "d/2.conf").write_text(f"Include {tmp_path}/main\n")
    found = list(sshd_files(tmp_path / "main"))
    assert [text for _, text in found][:2] == ["Port 22", "PermitRootLogin no"]
    assert found[-1] == (str(tmp_path / "main"), "PermitRootLogin yes")


def test_a_certificate_as_it_is_shown(tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    request = CertificateRequest("desk.example.org", ("localhost", "192.0.2.1"), NOW, NOW + timedelta(days=90))
    ensure_certificate(tmp_path / "c.crt", tmp_path / "c.key", request)
    encoded = x509.load_pem_x509_certificate((tmp_path / "c.crt").read_bytes()).public_bytes(Encoding.DER)
    facts = certificate_facts(ShownCertificate("nexus", "desk.example.org", encoded))
    assert {"localhost", "192.0.2.1"} <= set(facts.names) and facts.self_signed
    assert (facts.key, facts.bits, facts.hash) == ("EC", 256, "sha256")
    with pytest.raises(ValueError, match=r"."):
        certificate_facts(ShownCertificate("nexus", "x", b"garbage"))


def test_acceptances_are_kept_privately(place: Layout) -> None:
    store = AcceptanceStore(place)
    assert store.acceptances() == ()
    made = store.accept(FINDING, "known", NOW + timedelta(days=1), "hive")
    assert AcceptanceStore(place).acceptances() == (made,)
    assert stat.S_IMODE(place.accepted_findings.stat().st_mode) == 0o600
    assert store.withdraw(FINDING.id) == made and store.acceptances() == ()
    with pytest.raises(UnknownFindingError):
        store.withdraw(FINDING.id)


def test_a_file_that_others_can_write_accepts_nothing(place: Layout) -> None:
    store = AcceptanceStore(place)
    store.accept(FINDING, "known", NOW + timedelta(days=1), "hive")
    place.accepted_findings.chmod(0o602)
    assert store.acceptances() == () and "other accounts can write it" in store.trouble
    with pytest.raises(HelmError, match="can't be used"):
        store.accept(FINDING, "known", NOW + timedelta(days=1), "hive")
    place.accepted_findings.chmod(0o600)
    place.accepted_findings.write_text("garbage")
    assert store.acceptances() == () and str(place.accepted_findings) in store.trouble


class WithoutManager(DoctorContext):
    """An account whose user manager does not answer."""

    effective = Effective(Settings(), Registry({"core": Service("core", url="http://localhost:1", port=1)}))

    @property
    def manager(self) -> Manager:
        raise BusError("systemd does not answer")


def test_a_check_that_fails_prevents_no_other(place: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: DoctorContext) -> Iterator[SecurityFinding]:
        yield FINDING
        raise subprocess.CalledProcessError(100, ["apt-get"], stderr="W: a\nE: locked\n")

    def slow(_: DoctorContext) -> Iterator[SecurityFinding]:
        raise subprocess.TimeoutExpired(["kernel"], 3)

    monkeypatch.setattr(audit_module, "audit_updates", broken)
    monkeypatch.setattr(audit_module, "audit_kernel", slow)
    monkeypatch.setattr(audit_module, "firewall_state", lambda: FirewallState("nobody knows"))
    place.secrets.joinpath("core.env").write_text("SECRET_KEY=changeme\n")
    place.secrets.joinpath("core.env").chmod(0o644)
    context = WithoutManager(place)
    reply = audit_now(context)
    kinds = {each.kind for each in reply.findings}
    assert {"wide-binding", "readable-secret", "weak-secret"} <= kinds, "what was found before a failure counts"
    said = {sentence.partition(": ")[0]: sentence for sentence in reply.unchecked}
    assert said["updates"] == "updates: apt-get failed: E: locked"
    assert said["kernel"] == "kernel: kernel did not finish within 3 s"
    assert said["units"] == "units: systemd does not answer"
    assert said["firewall"] == "firewall: nobody knows"
