"""The security audit's decisions: what is a finding, how severe, with which evidence, and under which id."""

import base64
import hashlib
import hmac
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.api.security import FirewallStatus
from helmd.model.config.settings import Settings
from helmd.model.errors import UsageError
from helmd.model.security.acceptance import (
    LONGEST_ACCEPTANCE,
    Acceptance,
    acceptance_of,
    acceptances_in,
    acceptances_in_force,
    acceptances_text,
    accepted,
    with_acceptance,
)
from helmd.model.security.certificates import CertificateFacts, judge_shown_certificate, matches_host
from helmd.model.security.findings import (
    KINDS,
    SEVERITIES,
    SecurityFinding,
    at_least,
    by_severity,
    security_finding,
    worst_severity,
)
from helmd.model.security.firewall_state import EVERY_PORT, FirewallState, ReachablePorts
from helmd.model.security.listeners import OpenEnd, declared_ports, judge_sockets
from helmd.model.security.passwords import (
    StoredPassword,
    is_secret_name,
    judge_passwords,
    judge_secrets,
    keycloak_matches,
    scram_matches,
)
from helmd.model.security.permissions import FileFacts, FileOwner, judge_secret, judge_writable
from helmd.model.security.report import AuditFacts, audit_reply, finding_of, firewall_status, with_acceptances
from helmd.model.security.settings import (
    hba_lines,
    judge_debugging,
    judge_groups,
    judge_hba,
    judge_kernel,
    judge_sshd,
    judge_trust,
    judge_unit_text,
    judge_updates,
)
from helmd.model.security.units import UnitSandbox, judge_drift, judge_sandbox
from helmd.model.suite.service import Registry, Service
from helmd.operations.security.credentials import _argon2

UID = 1000
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
SUITE = Registry(
    {
        "core": Service("core", url="http://localhost:5000", port=5000),
        "nexus": Service("nexus", url="https://desk.example.org", port=443),
        "keycloak": Service("keycloak", type="keycloak", url="http://localhost:8080", port=8080),
        "plain": Service("plain", url="http://desk.example.org:7000", port=7000),
        "elsewhere": Service("elsewhere", type="external", url="http://other.example.org", port=8080),
    }
)
DECLARED = declared_ports(SUITE, Settings())
EPHEMERAL = range(32768, 61000)
CORE = "hivematrix-core.service"
OWNER = FileOwner(UID, "hive", (0, UID))
FINDING = security_finding("wide-binding", "core port 5000", "core is open", ["tcp 0.0.0.0:5000"], "bind it")


def end(family: str, address: str, port: int | None, unit: str | None = CORE, manager: int | None = UID,
        uid: int = UID, shared: bool = False) -> OpenEnd:  # fmt: skip
    return OpenEnd(family, address, port, uid, unit, manager, shared)  # type: ignore[arg-type]


def judged(*sockets: OpenEnd, protected: Iterable[int] = ()) -> list[tuple[str, str]]:
    return [(each.kind, each.severity) for each in judge_sockets(sockets, DECLARED, UID, EPHEMERAL, protected)]


HEALTHY = (
    end("tcp", "127.0.0.1", 8080, "hivematrix-keycloak.service"),
    end("tcp", "127.0.0.1", 40323, "hivematrix-keycloak.service"),
    end("tcp", "127.0.0.1", 5000),
    end("tcp", "0.0.0.0", 443, "hivematrix-nexus.service"),
    end("tcp", "127.0.0.1", 5004, "helmd.service"),
    end("tcp", "127.0.0.1", 5004, "init.scope"),
    end("tcp", "0.0.0.0", 22, "ssh.service", None, 0),
    end("udp", "0.0.0.0", 68, "networking.service", None, 0),
    end("packet", "protocol 0x0800", None, "networking.service", None, 0),
    end("unix", "/run/user/1000/bus", None, "dbus.service"),
    end("unix", "/home/hive/.local/state/x.sock", None),
    end("unix", "@/tmp/.X11-unix/X0", None, "session-2.scope", None),
    end("unix", "/run/user/1000/hivematrix/helm.sock", None, "helmd.socket", UID, UID, True),
)


def test_sockets_of_a_healthy_machine_are_no_findings() -> None:
    assert judged(*HEALTHY) == []


@pytest.mark.parametrize(
    ("socket", "kind", "severity"),
    [
        (end("tcp", "127.0.0.1", 9000), "undeclared-listener", "medium"),
        (end("tcp", "::", 9000), "undeclared-listener", "high"),
        (end("tcp", "192.0.2.4", 9000), "undeclared-listener", "high"),
        (end("tcp", "127.0.0.1", 443), "foreign-listener", "high"),
        (end("tcp", "127.0.0.1", 40323), "undeclared-listener", "medium"),
        (end("tcp", "0.0.0.0", 40323, "hivematrix-keycloak.service"), "undeclared-listener", "high"),
        (end("udp", "127.0.0.1", 5000), "undeclared-listener", "medium"),
        (end("udp", "0.0.0.0", 40000), "undeclared-listener", "high"),
        (end("udplite", "::1", 9000), "undeclared-listener", "medium"),
        (end("sctp", "0.0.0.0", 5000), "undeclared-listener", "high"),
        (end("tcp", "127.0.0.1", 9000, "helmd.service"), "undeclared-listener", "medium"),
        (end("tcp", "0.0.0.0", 5000, "apache2.service", None, 33), "foreign-listener", "high"),
        (end("tcp", "127.0.0.1", 5000, None, None), "foreign-listener", "high"),
        (end("tcp", "127.0.0.1", 5000, CORE, 1001, 1001), "foreign-listener", "high"),
        (end("tcp", "0.0.0.0", 9000, "session-2.scope", None), "account-listener", "medium"),
        (end("udp", "127.0.0.1", 9000, "planted.service"), "account-listener", "low"),
        (end("unix", "@planted", None), "abstract-socket", "medium"),
        (end("unix", "/tmp/planted", None, CORE, UID, UID, True), "shared-socket", "medium"),
        (end("raw", "0.0.0.0 protocol 255", None), "raw-socket", "high"),
        (end("packet", "protocol 0x0003", None, None, None), "raw-socket", "high"),
        (end("vsock", "AF_VSOCK", None), "unusual-socket", "medium"),
        (end("other", "TIPC", None, "session-2.scope", None), "unusual-socket", "medium"),
    ],
)
def test_a_socket_that_should_not_be(socket: OpenEnd, kind: str, severity: str) -> None:
    assert judged(*HEALTHY, socket) == [(kind, severity)]


def test_a_local_service_that_listens_for_others() -> None:
    wide = end("tcp", "0.0.0.0", 5000)
    assert judged(wide) == [("wide-binding", "high"), ("cleartext-listener", "high")]
    assert judged(wide, protected=[5000]) == [("wide-binding", "medium"), ("cleartext-listener", "medium")]
    assert judged(end("tcp", "0.0.0.0", 7000, "hivematrix-plain.service")) == [("cleartext-listener", "high")]
    mapped = next(iter(judge_sockets([wide], DECLARED, UID, EPHEMERAL)))
    assert mapped.evidence[0] == f"tcp 0.0.0.0:5000 is open, by {CORE} of uid {UID}"


def test_an_id_stays_the_same_and_no_process_is_in_it() -> None:
    first, second = (
        next(iter(judge_sockets([end("udp", "0.0.0.0", port)], DECLARED, UID, EPHEMERAL))) for port in (40000, 50123)
    )
    assert first.id == second.id, "the kernel chooses another port at each start"
    numbered = [next(iter(judge_sockets([end("unix", f"@x-{n}", None)], DECLARED, UID, EPHEMERAL))).id for n in (1, 23)]
    assert numbered[0] == numbered[1]
    assert FINDING.id == "wide-binding-" + hashlib.sha256(b"core port 5000").hexdigest()[:10]
    assert FINDING.id != replace(FINDING, subject="core port 5001").id


def test_severities_are_in_order() -> None:
    assert [at_least("high", least) for least in SEVERITIES] == [True, True, True, False]
    assert worst_severity(["low", "critical", "medium"]) == "critical" and worst_severity([]) is None
    other = security_finding("default-password", "x", "", [], "")
    assert by_severity([FINDING, other, FINDING]) == [other, FINDING]
    assert all(kind.why.endswith(".") for kind in KINDS.values())


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "attribute", "kinds"),
    [
        (0o600, UID, UID, b"", []),
        (0o640, UID, UID, b"", []),
        (0o640, UID, 100, b"", ["readable-secret"]),
        (0o644, UID, UID, b"", ["readable-secret"]),
        (0o604, 0, 0, b"", ["readable-secret"]),
        (0o600, 1001, UID, b"", ["foreign-owner"]),
        (0o640, UID, UID, acl((1, 6, 0), (2, 4, 33), (4, 0, 0), (0x10, 4, 0), (0x20, 0, 0)), ["readable-secret"]),
        (0o600, UID, UID, acl((1, 6, 0), (2, 4, 33), (4, 0, 0), (0x10, 0, 0), (0x20, 0, 0)), []),
        (0o640, UID, UID, acl((1, 6, 0), (8, 4, 100), (4, 0, 0), (0x10, 4, 0), (0x20, 0, 0)), ["readable-secret"]),
        (0o640, UID, UID, acl((1, 6, 0), (2, 4, UID), (4, 0, 0), (0x10, 4, 0), (0x20, 0, 0)), []),
    ],
)
def test_who_can_read_a_secret(mode: int, uid: int, gid: int, attribute: bytes, kinds: list[str]) -> None:
    facts = FileFacts("/x/key", mode, uid, gid, attribute)
    assert [each.kind for each in judge_secret(facts, OWNER, "a key")] == kinds


def test_a_directory_that_nobody_enters_makes_it_less_severe() -> None:
    found = next(iter(judge_secret(FileFacts("/x/key", 0o644, UID, UID, barrier="/x"), OWNER, "a key")))
    assert found.severity == "medium" and found.fix == "chmod 600 /x/key"
    assert found.evidence == ("/x/key: mode 0644, uid 1000, gid 1000", "at present, other accounts can't enter /x")


@pytest.mark.parametrize(
    ("mode", "directory", "capabilities", "kinds"),
    [
        (0o755, True, False, []),
        (0o777, True, False, ["writable-file"]),
        (0o1777, True, False, []),
        (0o666, False, False, ["writable-file"]),
        (0o4755, False, False, ["setuid-file"]),
        (0o2755, False, False, ["setuid-file"]),
        (0o2755, True, False, []),
        (0o755, False, True, ["setuid-file"]),
    ],
)
def test_who_can_change_what_the_suite_runs(mode: int, directory: bool, capabilities: bool, kinds: list[str]) -> None:
    facts = FileFacts("/x", mode, UID, UID, directory=directory, capabilities=capabilities)
    assert [each.kind for each in judge_writable(facts, OWNER, "core")] == kinds


@pytest.mark.parametrize("name", ["/x/a b", "/x/'; rm -rf ~ #", "/x/\x1b[2J\n$(id)`id`", "/x/\udcff\\é", "/x/-n"])
def test_a_name_that_somebody_chose_is_one_word_of_the_fix(name: str) -> None:
    (found,) = judge_writable(FileFacts(name, 0o666, UID, UID), OWNER, "core")
    said = subprocess.run(
        ["bash", "-c", f"chmod() {{ printf '%s' \"$2\"; }}; {found.fix}"], capture_output=True, check=True
    )
    assert said.stdout == name.encode("utf-8", "surrogateescape") and said.stderr == b""
    assert all(text.isprintable() for text in (found.subject, found.sentence, found.fix, *found.evidence))


def scram(password: str, salt: bytes = b"0123456789abcdef", count: int = 4096) -> str:
    """Return a verifier as PostgreSQL makes it (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, count)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    shown = [base64.b64encode(each).decode() for each in (salt, stored, server)]
    return f"SCRAM-SHA-256${count}:{shown[0]}${shown[1]}:{shown[2]}"


def test_a_role_with_a_default_password() -> None:
    assert scram_matches(scram("postgres"), "postgres") and not scram_matches(scram("x9!"), "postgres")
    assert not any(
        scram_matches(text, "x") for text in ("", "md5abc", "SCRAM-SHA-256$4096:?$?:?", "SCRAM-SHA-256$x:a$b:c")
    )
    stored = [
        StoredPassword(name, "PostgreSQL", lambda tried, verifier=verifier: scram_matches(verifier, tried), "set it")  # type: ignore[misc]
        for name, verifier in {
            "codex": scram("codex"),
            "postgres": scram("changeme"),
            "ledger": scram("Zq8vR2"),
        }.items()
    ]
    found = list(judge_passwords(stored))
    assert [each.subject for each in found] == ["PostgreSQL codex", "PostgreSQL postgres"]
    assert "its own name" in found[0].sentence and all(each.severity == "critical" for each in found)
    assert not any("changeme" in " ".join((each.sentence, *each.evidence, each.fix)) for each in found)


def test_a_user_of_keycloak_with_a_default_password() -> None:
    salt = base64.b64encode(b"0123456789abcdef").decode()
    value = base64.b64encode(_argon2(b"admin", b"0123456789abcdef", 5, 7168, 1, 32, "id", 19)).decode()
    secret = f'{{"value":"{value}","salt":"{salt}","additionalParameters":{{}}}}'
    about = (
        '{"hashIterations":5,"algorithm":"argon2","additionalParameters":{"hashLength":["32"],"memory":["7168"],'
        '"type":["id"],"version":["1.3"],"parallelism":["1"]}}'
    )
    assert keycloak_matches(secret, about, "admin", _argon2)
    assert keycloak_matches(secret, about, "other", _argon2) is False
    made = base64.b64encode(hashlib.pbkdf2_hmac("sha512", b"admin", b"0123456789abcdef", 1000, 64)).decode()
    older = f'{{"value":"{made}","salt":"{salt}"}}', '{"hashIterations":1000,"algorithm":"pbkdf2-sha512"}'
    assert keycloak_matches(*older, "admin", _argon2) and not keycloak_matches(*older, "x", _argon2)
    for damaged in (("", ""), ("{}", about), (secret, '{"hashIterations":1,"algorithm":"bcrypt"}'), ("[]", "[]")):
        assert keycloak_matches(*damaged, "admin", _argon2) is None
    assert keycloak_matches(secret, about.replace("7168", "999999999"), "admin", _argon2) is None, "memory is bounded"


def test_secrets_that_can_be_guessed() -> None:
    variables = {
        "SECRET_KEY": "change-me", "API_TOKEN": "abc", "OTHER_SECRET": "f" * 32, "JWT_PRIVATE_KEY_FILE": "keys/x",
        "CLIENT_SECRET": "{keycloak.client_secret}", "DB_PASSWORD": "", "KEYCLOAK_CLIENT_ID": "core",
    }  # fmt: skip
    found = list(judge_secrets("core", "/x/.flaskenv", variables))
    assert [each.subject for each in found] == ["core SECRET_KEY", "core API_TOKEN"]
    assert "change-me" not in str(found)
    assert is_secret_name("POSTGRES_PASSWORD") and not is_secret_name("TOKEN_TTL")


CERTIFICATE = CertificateFacts(
    "nexus",
    "desk.example.org",
    ("desk.example.org",),
    "EC",
    256,
    "sha256",
    NOW - timedelta(9),
    NOW + timedelta(90),
    False,
)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, None),
        ({"valid_until": NOW}, "certificate-expired"),
        ({"valid_from": NOW + timedelta(1)}, "certificate-expired"),
        ({"valid_until": NOW + timedelta(10)}, "certificate-expires"),
        ({"key": "RSA", "bits": 1024}, "certificate-weak"),
        ({"hash": "sha1"}, "certificate-weak"),
        ({"names": ("other.example.org",)}, "certificate-name"),
        ({"names": ("*.example.org",)}, None),
        ({"self_signed": True}, "certificate-self-signed"),
        ({"self_signed": True, "host": "localhost", "names": ("localhost",)}, None),
    ],
)
def test_certificates(change: dict[str, object], kind: str | None) -> None:
    found = list(judge_shown_certificate(replace(CERTIFICATE, **change), NOW))  # type: ignore[arg-type]
    assert [each.kind for each in found] == ([kind] if kind else [])
    assert all("nexus shows a certificate for" in each.evidence[0] for each in found)


def test_names_of_certificates() -> None:
    assert matches_host("*.example.org", "a.example.org") and not matches_host("*.example.org", "a.b.example.org")
    assert matches_host("127.0.0.1", "127.0.0.1") and matches_host("::1", "0:0:0:0:0:0:0:1")
    assert not matches_host("*.example.org", "example.org") and not matches_host("localhost", "127.0.0.1")


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        (Settings(), []),
        (Settings(trusted_proxies=(ip_network("192.0.2.7/32"), ip_network("2001:db8::1/128"))), []),
        (Settings(trusted_proxies=(ip_network("10.0.0.0/8"),)), [("broad-trust", "high")]),
        (Settings(trusted_proxies=(ip_network("::/0"),)), [("broad-trust", "high")]),
        (Settings(trusted_proxies=(ip_network("192.0.0.0/20"),)), [("broad-trust", "medium")]),
        (Settings(trusted_units=("hivematrix-*.service",)), [("broad-trust", "high")]),
        (Settings(trusted_units=("hivematrix-core.service", "backup-*.service")), []),
        (Settings(ingest_anonymous="loopback"), [("anonymous-ingest", "low")]),
    ],
)
def test_settings_that_trust_too_much(settings: Settings, kinds: list[tuple[str, str]]) -> None:
    assert [(each.kind, each.severity) for each in judge_trust(settings, SUITE)] == kinds


def test_debuggers() -> None:
    def severities(mode: str, wide: bool = False, **variables: str) -> list[str]:
        return [each.severity for each in judge_debugging("core", mode, variables, "/x/.flaskenv", wide)]  # type: ignore[arg-type]

    assert severities("production", FLASK_DEBUG="0", DEBUG="", NODE_ENV="production", JAVA_OPTS="-Xmx1g") == []
    assert severities("production", FLASK_DEBUG="1") == ["high"]
    assert severities("development", FLASK_DEBUG="true") == ["low"]
    assert severities("development", True, FLASK_DEBUG="true") == ["critical"]
    assert severities("production", FLASK_ENV="development") == ["high"]
    assert severities("development", FLASK_ENV="development") == []
    assert severities("development", JAVA_OPTS="-agentlib:jdwp=transport=dt_socket") == ["high"]
    assert severities("production", True, NODE_OPTIONS="--inspect=0.0.0.0:9229") == ["critical"]


def test_secrets_in_unit_files() -> None:
    text = '[Service]\nEnvironment=API_TOKEN=abc\nEnvironment="MAIL_PASSWORD=x y" PORT=5\nEnvironment=DB=postgresql://u:p@h/d\n'
    found = list(judge_unit_text(CORE, {"/u/core.service": text}))
    assert [each.subject for each in found] == [f"{CORE} API_TOKEN", f"{CORE} MAIL_PASSWORD", f"{CORE} DB"]
    assert not any(secret in str(found) for secret in ("abc", "x y", "u:p@"))
    assert list(judge_unit_text(CORE, {"x": "[Service]\nEnvironment=PORT=5 JWT_PRIVATE_KEY_FILE=keys/x\n"})) == []


HBA = """
# TYPE  DATABASE USER ADDRESS METHOD
local all "postgres" scram-sha-256
local "trust" all peer map=hivematrix
host all all 127.0.0.1/32 trust # all of this machine
host "a b" all 10.0.0.0 255.0.0.0 password
hostssl all all ::1/128 scram-sha-256
"""


def test_logins_without_a_password() -> None:
    assert [line.method for line in hba_lines(HBA)] == ["scram-sha-256", "peer", "trust", "password", "scram-sha-256"]
    found = list(judge_hba("postgres", "/c/pg_hba.conf", HBA))
    assert [each.kind for each in found] == ["trust-login", "cleartext-listener"]
    assert found[0].evidence == ("/c/pg_hba.conf:5: host all all 127.0.0.1/32 trust",)


def test_root_logins_over_ssh() -> None:
    def found(*texts: str) -> list[str]:
        return [each.kind for each in judge_sshd([(f"/etc/ssh/{n}", text) for n, text in enumerate(texts)])]

    assert found("PermitRootLogin yes") == ["ssh-root-password"]
    assert found("permitrootlogin=yes\nPasswordAuthentication no") == []
    assert found("", "#PermitRootLogin yes", "Match User x\nPermitRootLogin yes") == []
    assert found("PermitRootLogin no", "PermitRootLogin yes") == [], "the first value counts"


def test_the_machine() -> None:
    assert [
        each.subject for each in judge_kernel({"fs.protected_symlinks": "0", "kernel.randomize_va_space": "2"})
    ] == ["fs.protected_symlinks"]
    assert [each.kind for each in judge_groups("hive", UID, ["hive", "systemd-journal"])] == []
    assert [each.subject for each in judge_groups("hive", UID, ["docker", "sudo"])] == ["hive docker", "hive sudo"]
    assert [each.severity for each in judge_groups("root", 0, [])] == ["critical"]
    simulated = (
        "Inst openssl [3.0.15-1] (3.0.16-1~deb12u1 Debian-Security:12/stable-security [amd64])\n"
        "Inst vim [2:9.0] (2:9.1 Debian:12.9/stable [amd64])\nConf openssl (3.0.16 Debian-Security:12 [amd64])\n"
    )
    (found,) = judge_updates(simulated)
    assert found.evidence == ("openssl 3.0.16-1~deb12u1",) and "1 security update is" in found.sentence
    assert list(judge_updates("")) == []


def test_sandboxes() -> None:
    def kinds(**given: object) -> list[str]:
        sandbox = UnitSandbox("core", CORE, **{"profile": "default", "isolates": True, "exposure": 2.1, **given})  # type: ignore[arg-type]
        return [each.kind for each in judge_sandbox(sandbox)]

    assert kinds() == kinds(exposure=None) == kinds(exposure=2.9) == []
    assert kinds(profile="off", isolates=False, exposure=9.8) == ["unit-not-sandboxed"]
    assert kinds(isolates=False) == ["unit-not-sandboxed"]
    assert kinds(exposure=6.0) == ["weak-sandbox"]
    assert kinds(exposing=["/home/hive (x)"]) == ["exposing-path"]
    assert [each.kind for each in judge_drift(CORE, "changed", False)] == ["unit-drift"]
    assert [each.kind for each in judge_drift(CORE, "same", True)] == ["unit-drift"]
    assert list(judge_drift(CORE, "same", False)) == list(judge_drift(CORE, "refused", False)) == []


def accepting(until: datetime = NOW + timedelta(days=3), at: datetime = NOW) -> Acceptance:
    return acceptance_of(FINDING, "known", until, "hive", at)


def test_an_acceptance_ends_by_itself() -> None:
    known = (accepting(),)
    just_before = NOW + timedelta(days=3, seconds=-1)
    assert accepted(FINDING, acceptances_in_force(known, just_before)) == known[0]
    assert acceptances_in_force(known, NOW + timedelta(days=3)) == {}
    worse = replace(FINDING, severity="critical")
    assert accepted(worse, acceptances_in_force(known, NOW)) is None, "what has become more severe counts"
    assert accepted(replace(FINDING, severity="low"), acceptances_in_force(known, NOW)) == known[0]


def test_a_clock_that_went_back_makes_no_acceptance_last_longer() -> None:
    ended, newer = (
        accepting(NOW + timedelta(days=1)),
        replace(accepting(), id="other", accepted_at=NOW + timedelta(days=2)),
    )
    wrong = NOW - timedelta(days=400)
    assert set(acceptances_in_force((ended, newer), wrong)) == {"other"}
    again = with_acceptance((ended, newer), accepting(wrong + timedelta(days=9), wrong))
    assert again[-1].accepted_at == newer.accepted_at and FINDING.id not in acceptances_in_force(again, wrong)


@pytest.mark.parametrize(
    ("reason", "until"),
    [
        ("", NOW + timedelta(1)),
        (" ", NOW + timedelta(1)),
        ("x" * 501, NOW + timedelta(1)),
        ("x", NOW),
        ("x", NOW + LONGEST_ACCEPTANCE + timedelta(1)),
    ],
)
def test_acceptances_that_are_refused(reason: str, until: datetime) -> None:
    with pytest.raises(UsageError):
        acceptance_of(FINDING, reason, until, "hive", NOW)


def test_the_file_of_acceptances() -> None:
    first = accepting()
    other = replace(first, id="other", reason="é\n")
    assert acceptances_in(acceptances_text((first, other))) == (first, other)
    replaced = with_acceptance((first, other), accepting(NOW + timedelta(days=9)))
    assert [each.id for each in replaced] == ["other", FINDING.id]
    gone = with_acceptance((first,), replace(other, accepted_at=first.until + LONGEST_ACCEPTANCE * 2))
    assert [each.id for each in gone] == ["other"]


@given(st.text(max_size=40) | st.sampled_from(["[]", "{}", '{"format": 1}', '{"format": 1, "accepted": [1]}']))
def test_a_damaged_file_accepts_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        acceptances_in(text)


def test_the_reply() -> None:
    core_wide = end("tcp", "0.0.0.0", 5000)
    findings = list(judge_sockets([core_wide], DECLARED, UID, EPHEMERAL))
    taken = end("tcp", "127.0.0.1", 7000, "x.service", None, 33)
    facts = AuditFacts(
        NOW,
        1.234,
        findings,
        (*(each for each in HEALTHY if each.port != 5000), core_wide, taken),
        DECLARED,
        unchecked=("x",),
    )
    reply = audit_reply(facts, UID)
    assert [each.service for each in reply.secure_services] == ["nexus", "keycloak", "helm"]
    assert [(each.service, each.binding) for each in reply.exposed_services] == [("core", "0.0.0.0")]
    assert reply.firewall_required == reply.exposed_services and reply.firewall_protected == ()
    assert (
        [each.service for each in reply.not_running] == [each.service for each in reply.unknown_services] == ["plain"]
    )
    assert (reply.summary.high, reply.severity, reply.firewall_status.active) == (2, "high", None)
    assert {(each.port, each.service, each.declared) for each in reply.listeners} == {
        (22, None, False), (68, None, False), (443, "nexus", True), (5000, "core", True), (5004, "helm", True),
        (8080, "keycloak", True), (40323, "keycloak", False),
        (7000, None, False),
    }  # fmt: skip
    guarded = audit_reply(replace(facts, firewall=FirewallStatus(True, "nftables", (5000,))), UID)
    assert [each.status for each in guarded.firewall_protected] == ["protected"] and not guarded.exposed_services


def test_ports_that_the_firewall_keeps_others_from() -> None:
    state = FirewallState(
        kind="nftables",
        active=True,
        policy="drop",
        ipv4=ReachablePorts(((443, 443),), ((5004, 5004),)),
        ipv6=ReachablePorts(),
    )
    assert firewall_status([5000, 443, 5004], state) == FirewallStatus(True, "nftables", (5000, 5004))
    assert firewall_status([5000], FirewallState("nobody knows")) == FirewallStatus(None, None, ())
    assert firewall_status([5000], FirewallState(ipv4=ReachablePorts(EVERY_PORT))) == FirewallStatus(False, None, ())


def test_accepted_findings_are_shown_and_do_not_count() -> None:
    reply = audit_reply(AuditFacts(NOW, 0, [FINDING]), UID)
    assert [finding_of(each) for each in reply.findings] == [FINDING]
    shown = with_acceptances(reply, acceptances_in_force((accepting(),), NOW))
    assert shown.findings[0].accepted is not None and shown.findings[0].accepted.reason == "known"
    assert (shown.summary.high, shown.summary.accepted, shown.severity, shown.recommendations) == (0, 1, None, ())
    assert with_acceptances(shown, acceptances_in_force((accepting(),), NOW + timedelta(days=4))) == reply


def test_a_finding_without_a_kind_can_not_be_made() -> None:
    with pytest.raises(KeyError):
        security_finding("other", "x", "", [], "")
    assert SecurityFinding("wide-binding", "x", "low", "", (), "").why == KINDS["wide-binding"].why
