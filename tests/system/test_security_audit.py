"""Faults planted in a running suite, all at once: the security audit finds each with its evidence, and none without."""

import json
import shlex
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.system.booted import Sandbox, superuser_sql, until, until_none
from tests.system.keycloak_admin import REALM, Admin
from tests.system.test_doctor_faults import EXPIRED

CONFIG, UNITS = "/home/hive/.config/hivematrix", "/home/hive/.local/share/systemd/user"
SUITE, CLUSTER = "/home/hive/suite", "/home/hive/.local/state/hivematrix/postgres-suite"
DROP_INS = "/home/hive/.config/systemd/user"
SOCKET = "/run/user/1000/hivematrix/helm.sock"

LISTENING = """\
import os, socket, time
opened = []
def add(family, kind, address, protocol=0):
    one = socket.socket(family, kind, protocol)
    one.bind(address)
    if kind == socket.SOCK_STREAM:
        one.listen()
    opened.append(one)
add(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 7101))
add(socket.AF_INET6, socket.SOCK_STREAM, ("::", 7102))
add(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 7103))
add(socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 7104))
add(socket.AF_INET, socket.SOCK_DGRAM, ("0.0.0.0", 7105), 136)
add(socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", 7130))
add(socket.AF_UNIX, socket.SOCK_STREAM, "\\0planted")
add(socket.AF_UNIX, socket.SOCK_STREAM, "/tmp/planted.sock")
os.chmod("/tmp/planted.sock", 0o666)
add(socket.AF_VSOCK, socket.SOCK_STREAM, (socket.VMADDR_CID_ANY, 7107))
time.sleep(3600)
"""
RAW = "import socket, time; a = socket.socket(2, 3, 255); b = socket.socket(17, 3, 768); time.sleep(3600)"
SERVICES = """\
[services.planted]
type = "command"
path = "~/planted"
start_command = ["/usr/bin/python3", "/home/hive/planted/run.py"]
port = 7130
url = "http://localhost:7130"
hardening = "off"
health = { check = "port" }

[services.absent]
type = "command"
path = "~/planted"
start_command = ["/usr/bin/python3", "/home/hive/planted/run.py"]
port = 7120
url = "http://localhost:7120"
"""

PLANT = f"""set -e
mkdir -p ~/planted ~/kept; cat > ~/planted/run.py <<'END'
{LISTENING}END
cat > {CONFIG}/services.d/planted.toml <<'END'
{SERVICES}END
echo SECRET_KEY=changeme > {CONFIG}/secrets/planted.env; chmod 600 {CONFIG}/secrets/planted.env
helmctl apply; helmctl start planted
systemd-run --user --quiet --unit planted-listener python3 -m http.server --bind 0.0.0.0 7110
cp -p {CLUSTER}/pg_hba.conf {CONFIG}/helm.toml {SUITE}/ledger/.flaskenv ~/kept/
echo 'host all all 127.0.0.1/32 trust' >> {CLUSTER}/pg_hba.conf
chmod 644 {CONFIG}/secrets/codex.env {SUITE}/core/.flaskenv
echo FLASK_DEBUG=1 >> {SUITE}/ledger/.flaskenv
cp /bin/true {SUITE}/ledger/tool; chmod 4755 {SUITE}/ledger/tool; chmod 777 {SUITE}/knowledgetree
mkdir -p {DROP_INS}/hivematrix-ticker.service.d {DROP_INS}/hivematrix-codex.service.d
printf '[Service]\\nEnvironment=API_TOKEN=f3a9c1d2e5\\n' > {DROP_INS}/hivematrix-ticker.service.d/planted.conf
printf '[Service]\\nPrivateUsers=no\\n' > {DROP_INS}/hivematrix-codex.service.d/planted.conf
systemctl --user daemon-reload
echo '# edited' >> {UNITS}/hivematrix-ledger.service
sed -i 's/^#trusted_units = .*/trusted_units = ["hivematrix-*.service"]/; s/^#anonymous = .*/anonymous = "loopback"/
    s/^#trusted_proxies = .*/trusted_proxies = ["10.0.0.0\\/8"]/' {CONFIG}/helm.toml
cd {SUITE}/nexus/certs; cp -p nexus.crt nexus.key ~/kept; python3 -W ignore -c '{EXPIRED}'; helmctl restart nexus
"""
PLANT_AS_ROOT = f"""set -e
systemd-run --quiet --unit planted-foreign python3 -m http.server --bind 127.0.0.1 7120
systemd-run --quiet --unit planted-raw setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps +net_raw \\
    --ambient-caps +net_raw python3 -c '{RAW}'
groupadd --force docker; gpasswd -a hive docker
mkdir -p /etc/ssh; printf 'PermitRootLogin yes\\n' > /etc/ssh/sshd_config
touch {SUITE}/codex/planted; chown 12345 {SUITE}/codex/planted
"""
ALL_LISTEN = """
for port in 7110 7120 7130; do until ss -Hltn sport = :$port | grep -q .; do sleep 0.1; done; done
until [ "$(stat -c %a /tmp/planted.sock)" = 666 ] && ss -Hwan | grep -q .; do sleep 0.1; done
"""
REMOVE_AS_ROOT = f"""
systemctl stop planted-foreign planted-raw
gpasswd -d hive docker; rm -f /etc/ssh/sshd_config {SUITE}/codex/planted
"""
REMOVE = f"""
cp -p ~/kept/pg_hba.conf {CLUSTER}/; cp -p ~/kept/helm.toml {CONFIG}/; cp -p ~/kept/.flaskenv {SUITE}/ledger/
cp -p ~/kept/nexus.crt ~/kept/nexus.key {SUITE}/nexus/certs/
chmod 600 {CONFIG}/secrets/codex.env {SUITE}/core/.flaskenv; rm -f {SUITE}/ledger/tool; chmod 755 {SUITE}/knowledgetree
rm -rf {DROP_INS}/hivematrix-ticker.service.d {DROP_INS}/hivematrix-codex.service.d
systemctl --user stop planted-listener; helmctl stop planted; rm -f {CONFIG}/services.d/planted.toml; helmctl apply
systemctl --user daemon-reload; helmctl restart nexus
rm -rf ~/planted ~/kept /tmp/planted.sock {CONFIG}/secrets/planted.env {CONFIG}/secrets/accepted-findings.json
"""


class PlantedExposure(NamedTuple):
    """What the audit is to find: the kind, the subject, and a part of the evidence."""

    kind: str
    subject: str
    evidence: str


PLANTED = (
    PlantedExposure(
        "undeclared-listener", "planted tcp 7101 local", "tcp 127.0.0.1:7101 is open, by hivematrix-planted.service"
    ),
    PlantedExposure("undeclared-listener", "planted tcp 7102 wide", "tcp [::]:7102 is open"),
    PlantedExposure("undeclared-listener", "planted udp 7103 local", "udp 127.0.0.1:7103 is open"),
    PlantedExposure("undeclared-listener", "planted udp 7104 local", "udp [::1]:7104 is open"),
    PlantedExposure("undeclared-listener", "planted udplite 7105 wide", "udplite 0.0.0.0:7105 is open"),
    PlantedExposure("abstract-socket", "planted @planted", "unix @planted is open, by hivematrix-planted.service"),
    PlantedExposure("shared-socket", "planted /tmp/planted.sock", "unix /tmp/planted.sock is open"),
    PlantedExposure("unusual-socket", "planted vsock AF_VSOCK", "hivematrix-planted.service"),
    PlantedExposure("account-listener", "tcp 7110 wide", "tcp 0.0.0.0:7110 is open, by planted-listener.service"),
    PlantedExposure("raw-socket", "account raw 0.0.0.0 protocol 255", "by a process of uid 1000"),
    PlantedExposure("raw-socket", "account packet protocol 0x0003", "by a process of uid 1000"),
    PlantedExposure("foreign-listener", "absent port 7120", "tcp 127.0.0.1:7120 is open, by planted-foreign.service"),
    PlantedExposure("wide-binding", "planted port 7130", "tcp 0.0.0.0:7130 is open"),
    PlantedExposure("cleartext-listener", "planted port 7130", "tcp 0.0.0.0:7130 is open"),
    PlantedExposure("default-password", "PostgreSQL planted", "stored hash of planted is that of its own name"),
    PlantedExposure("default-password", f"Keycloak's realm {REALM} demo", "stored hash of demo is that of"),
    PlantedExposure("temporary-admin", "Keycloak demo", "is_temporary_admin"),
    PlantedExposure("trust-login", "postgres host all all 127.0.0.1/32", "127.0.0.1/32 trust"),
    PlantedExposure("readable-secret", f"{CONFIG}/secrets/codex.env", "mode 0644"),
    PlantedExposure("readable-secret", f"{SUITE}/core/.flaskenv", "mode 0644"),
    PlantedExposure("writable-file", f"{SUITE}/knowledgetree", "mode 0777"),
    PlantedExposure("setuid-file", f"{SUITE}/ledger/tool", "mode 4755"),
    PlantedExposure("foreign-owner", f"{SUITE}/codex/planted", "uid 12345"),
    PlantedExposure("secret-in-unit", "hivematrix-ticker.service API_TOKEN", "planted.conf: Environment=API_TOKEN="),
    PlantedExposure("unit-not-sandboxed", "hivematrix-planted.service", 'hardening = "off"'),
    PlantedExposure("unit-not-sandboxed", "hivematrix-codex.service", "as loaded"),
    PlantedExposure("unit-drift", "hivematrix-ledger.service", "as changed"),
    PlantedExposure("certificate-expired", "nexus", "valid from"),
    PlantedExposure("certificate-name", "nexus", "no name"),
    PlantedExposure("broad-trust", "http.trusted_proxies 10.0.0.0/8", "16,777,216 addresses"),
    PlantedExposure("broad-trust", "http.trusted_units hivematrix-*.service", "hivematrix-core.service"),
    PlantedExposure("anonymous-ingest", "ingest.anonymous", "loopback"),
    PlantedExposure("debug-mode", "ledger FLASK_DEBUG", "FLASK_DEBUG=1"),
    PlantedExposure("weak-secret", "planted SECRET_KEY", "with 8 characters"),
    PlantedExposure("powerful-group", "hive docker", "docker"),
    PlantedExposure("ssh-root-password", "sshd", "PermitRootLogin yes"),
)


def audit(box: Sandbox, *words: str) -> dict[str, Any]:
    done = box.helmctl("security", "audit", "--json", *words, check=False)
    assert done.code in (0, 1), done.text
    reply: dict[str, Any] = json.loads(done.out)
    return reply


def open_findings(reply: dict[str, Any]) -> list[str]:
    """What is found, apart from Debian's updates that are newer than the sandbox's base."""
    return [
        f"{each['kind']} {each['subject']}: {each['evidence']}"
        for each in reply["findings"]
        if not each["accepted"] and each["kind"] != "security-updates"
    ]


@pytest.fixture(scope="module")
def healthy(demo: Sandbox) -> Sandbox:
    """The demo without a finding, each check made."""
    until_none(lambda: open_findings(audit(demo)), 60, 2)
    reply = audit(demo)
    assert not [each for each in reply["unchecked"] if not each.startswith("firewall: ")], reply["unchecked"]
    return demo


class Plants:
    """What is planted in a suite, and taken away again."""

    def __init__(self, box: Sandbox) -> None:
        self.box, self._admin, self._user, self._planted = box, Admin(box), "", False

    def plant(self) -> None:
        self._planted = True
        self.box.shell(PLANT)
        self.box.shell(PLANT_AS_ROOT, root=True)
        # What was started listens once its interpreter runs.
        self.box.shell(f"timeout 30 sh -c {shlex.quote(ALL_LISTEN)}", root=True)
        superuser_sql(self.box, "CREATE ROLE planted LOGIN PASSWORD 'planted'")
        password = {"type": "password", "value": "admin", "temporary": False}
        user = {"username": "demo", "enabled": True, "credentials": [password]}
        answer = self._admin("POST", f"/{REALM}/users", user)
        assert answer.code == 201, answer
        self._user = answer.headers["location"].rpartition("/")[2]
        # As Keycloak notes it; its API keeps attributes that it does not know out.
        values = f"('is_temporary_admin', 'true', '{self._user}', 'planted')"
        superuser_sql(self.box, f"INSERT INTO user_attribute (name, value, user_id, id) VALUES {values}", "keycloak")

    def remove(self) -> None:
        if not self._planted:
            return
        if self._user:
            superuser_sql(self.box, "DELETE FROM user_attribute WHERE id = 'planted'", "keycloak")
            self._admin("DELETE", f"/{REALM}/users/{self._user}")
        superuser_sql(self.box, "DROP ROLE IF EXISTS planted")
        self.box.shell(REMOVE_AS_ROOT, root=True, check=False)
        self.box.shell(REMOVE, check=False)
        self._user, self._planted = "", False


@pytest.fixture(scope="module")
def plants(healthy: Sandbox) -> Iterator[Plants]:
    made = Plants(healthy)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def planted(plants: Plants) -> Sandbox:
    """The demo with everything planted."""
    plants.plant()
    return plants.box


def test_audits_are_made_outside_helmd(healthy: Sandbox) -> None:
    """One run for two who ask, which goes on while helmd restarts; of one that is killed, that is said."""
    asked = ("curl", "-s", "--unix-socket", SOCKET)
    place = "/run/user/1000/systemd/user/helmd-check@audit.service.d"
    replaced = "[Service]\nExecStart=\nExecStart=/bin/sleep 600\nTimeoutStartSec=700\n"

    def shown(name: str) -> str:
        return healthy("systemctl", "--user", "show", "-P", name, "helmd-check@audit").out.strip()

    def page() -> str:
        return healthy(*asked, "--max-time", "60", "-H", "Accept: text/html", "http://helm/helm/security").out

    last = json.loads(healthy(*asked, "--max-time", "60", "http://helm/api/security/audit?max_age=3600").out)
    try:
        healthy.shell(f"mkdir -p {place}; printf '{replaced}' > {place}/test.conf; systemctl --user daemon-reload")
        healthy(*asked, "--max-time", "1", "http://helm/api/security/audit?max_age=0", check=False)
        until(lambda: shown("ActiveState") == "activating", 30)
        run = shown("InvocationID")
        healthy("systemctl", "--user", "restart", "helmd")
        healthy(*asked, "--max-time", "1", "http://helm/api/security/audit?max_age=0", check=False)
        assert "checking again" in page() and last["checked_at"][:19] in page()
        assert shown("InvocationID") == run and shown("ActiveState") == "activating"
        healthy("systemctl", "--user", "kill", "--signal=KILL", "helmd-check@audit")
        until(lambda: shown("ActiveState") == "failed", 30)
        text = page()
        assert "so this is older: the security audit was killed by SIGKILL" in text
        assert "journalctl --user-unit helmd-check@audit" in text and last["checked_at"][:19] in text
        assert shown("InvocationID") == run, "looking at the page does not try it again at once"
        assert "helmd-check" not in healthy.helmctl("audit", "-n", "20").out
    finally:
        healthy.shell(f"rm -rf {place}; systemctl --user daemon-reload; systemctl --user reset-failed 'helmd-check@*'")


def test_each_planted_exposure_is_found_with_its_evidence(planted: Sandbox) -> None:
    reply = audit(planted)
    found = {(each["kind"], each["subject"]): each for each in reply["findings"]}
    missing = [each for each in PLANTED if (each.kind, each.subject) not in found]
    assert not missing, [*missing, *found, *reply["unchecked"]]
    for each in PLANTED:
        shown = found[each.kind, each.subject]
        assert any(each.evidence in line for line in shown["evidence"]), shown
        assert shown["why"] and shown["fix"] and shown["id"].startswith(each.kind), shown
    others = set(found) - {(each.kind, each.subject) for each in PLANTED}
    # These follow from the ports that other machines reach, and from the second service that was planted.
    assert {kind for kind, _ in others} <= {"firewall-inactive", "weak-secret", "unit-drift", "security-updates"}, (
        others
    )
    assert "changeme" not in json.dumps(reply) and "f3a9c1d2e5" not in json.dumps(reply)
    assert [each["service"] for each in reply["exposed_services"]] == ["planted"]
    assert [each["service"] for each in reply["unknown_services"]] == ["absent"]
    assert planted.helmctl("security", "audit", "--fail-on", "critical", check=False).code == 1


def test_an_accepted_finding_returns_at_its_end(planted: Sandbox) -> None:
    asked = ("curl", "-s", "--max-time", "60", "--unix-socket", SOCKET)

    def over_http(max_age: int) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(planted(*asked, f"http://helm/api/security/audit?max_age={max_age}").out)
        return reply

    def accepted(reply: dict[str, Any]) -> set[str]:
        return {each["accepted"]["reason"] for each in reply["findings"] if each["accepted"]}

    first = over_http(0)
    assert {(each.kind, each.subject) for each in PLANTED} <= {
        (each["kind"], each["subject"]) for each in first["findings"]
    }, "the sandbox of the audit's unit keeps it from seeing none"
    ids = {each["kind"]: each["id"] for each in first["findings"]}
    planted.helmctl("security", "accept", ids["raw-socket"], "--reason", "known", "--until", "+30 days")
    route = f"http://helm/api/security/findings/{ids['anonymous-ingest']}/accept"
    end = planted("date", "-u", "-d", "+10 seconds", "+%FT%TZ").out.strip()
    begun, body = time.monotonic(), json.dumps({"reason": "a test", "until": end})
    sent = ("-H", "Content-Type: application/json", "-d", body, "-w", "%{http_code}", "-o", "/dev/null")
    assert planted(*asked, *sent, route).out == "201"
    meanwhile = over_http(3600)
    assert accepted(meanwhile) == {"known", "a test"} and meanwhile["summary"]["accepted"] == 2
    time.sleep(max(0.0, begun + 11 - time.monotonic()))
    again = over_http(3600)
    assert again["checked_at"] == meanwhile["checked_at"] == first["checked_at"], "all of one audit"
    assert accepted(again) == {"known"}
    planted.helmctl("security", "withdraw", ids["raw-socket"])
    assert accepted(over_http(3600)) == set()
    trail = planted.helmctl("audit", "-n", "30").out
    assert "accept finding: done [helmctl" in trail and "/api/security/findings/{id}/accept: done" in trail


def test_none_is_found_once_all_is_removed(planted: Sandbox, plants: Plants) -> None:
    plants.remove()
    until_none(lambda: open_findings(audit(planted)), 60, 2)
    assert planted.helmctl("security", "audit", "--fail-on", "high").code == 0
