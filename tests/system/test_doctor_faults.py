"""Faults planted one at a time in a running suite: doctor finds each, names the fix, and exits with 1."""

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.system.booted import Sandbox, until

CONFIG, UNITS = "~/.config/hivematrix", "~/.local/share/systemd/user"
RUN = "/run/user/1000/hivematrix"
ADDED = f"""cat > {CONFIG}/services.d/planted.toml <<'END'
[services.planted]
type = "command"
path = "~/suite"
start_command = ["/bin/sh", "-c", "PROGRAM"]
END
helmctl apply; helmctl start planted --timeout 5s; true"""
REMOVED = f"helmctl stop planted; rm -f {CONFIG}/services.d/planted.toml; helmctl apply"
EXPIRED = """\
import datetime as d; from cryptography import x509; from cryptography.x509.oid import NameOID
from cryptography.hazmat.primitives import hashes, serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
key, now = ec.generate_private_key(ec.SECP256R1()), d.datetime.utcnow()
name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
made = made.not_valid_before(now - d.timedelta(9)).not_valid_after(now - d.timedelta(2)).sign(key, hashes.SHA256())
open("nexus.crt", "wb").write(made.public_bytes(s.Encoding.PEM))
open("nexus.key", "wb").write(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
"""


class PlantedFault(NamedTuple):
    """Shell commands that plant and remove a fault; what doctor says of it, and what is in the fix."""

    plant: str
    remove: str
    said: str
    fix: str
    root: bool = False


FAULTS = {
    "failed": PlantedFault(ADDED.replace("PROGRAM", "exit 3"), REMOVED, "planted is f", "helmctl why planted"),
    "unhealthy": PlantedFault(
        "systemctl --user kill -s STOP hivematrix-codex",
        "systemctl --user kill -s CONT hivematrix-codex",
        "codex is unhealthy",
        "helmctl restart codex",
    ),
    "database of the suite stopped": PlantedFault(
        "systemctl --user stop hivematrix-postgres",
        "helmctl up",
        "postgres is stopped, and these run and need it",
        "start",
    ),
    "dependency stopped": PlantedFault(
        "systemctl --user stop hivematrix-core", "helmctl up", "core is stopped, and these run", "helmctl start core"
    ),
    "stopped by a signal": PlantedFault(
        "systemctl --user kill -s KILL hivematrix-ticker; systemctl --user stop hivematrix-ticker; "
        "systemctl --user start hivematrix-ticker; for i in 1 2 3 4 5 6 7 8; do "
        "systemctl --user kill -s KILL hivematrix-ticker; sleep 0.7; done",
        "helmctl restart ticker",
        "ticker is f",
        "helmctl restart ticker",
    ),
    "log store stopped": PlantedFault(
        "systemctl --user stop helmd-postgres",
        "systemctl --user start helmd-postgres",
        "no logs are stored",
        "systemctl --user start helmd-postgres",
    ),
    "helmd-journal stopped": PlantedFault(
        "systemctl --user stop helmd-journal",
        "systemctl --user start helmd-journal",
        "helmd-journal.service is stopped",
        "systemctl --user enable --now helmd-journal",
    ),
    "helmd stopped": PlantedFault(
        "systemctl --user stop helmd.socket helmd-http.socket helmd",
        "systemctl --user start helmd.socket helmd-http.socket helmd",
        "helmd.service is stopped",
        "systemctl --user enable --now helmd.service",
    ),
    "configuration not applied": PlantedFault(
        f"printf '[services.codex.environment]\\nADDED = \"1\"\\n' > {CONFIG}/services.d/drift.toml",
        f"rm {CONFIG}/services.d/drift.toml",
        "hivematrix-codex.service differs from the configuration",
        "helmctl apply",
    ),
    "unit edited": PlantedFault(
        f"echo '# edited' >> {UNITS}/hivematrix-ledger.service",
        "helmctl apply",
        "hivematrix-ledger.service",
        "systemctl --user daemon-reload",
    ),
    "unit removed": PlantedFault(
        f"rm {UNITS}/hivematrix-ticker.service",
        "helmctl apply",
        "hivematrix-ticker.service is not installed",
        "helmctl apply",
    ),
    "error in the configuration": PlantedFault(
        f"echo '[services.codex' > {CONFIG}/services.d/typo.toml",
        f"rm {CONFIG}/services.d/typo.toml",
        "typo.toml:1",
        "Correct",
    ),
    "directory missing": PlantedFault(
        "mv ~/suite/ledger ~/suite/moved", "mv ~/suite/moved ~/suite/ledger", "ledger", "correct the path"
    ),
    "secrets readable": PlantedFault(
        f"chmod 644 {CONFIG}/secrets/codex.env",
        f"chmod 600 {CONFIG}/secrets/codex.env",
        "other accounts can read it",
        "chmod 600",
    ),
    "signing key broken": PlantedFault(
        f"cp -p {CONFIG}/secrets/journal.keys ~/keys; echo garbage > {CONFIG}/secrets/journal.keys",
        f"mv ~/keys {CONFIG}/secrets/journal.keys",
        "journal.keys",
        "move it away",
    ),
    "port in use": PlantedFault(
        "helmctl stop codex; systemd-run --user --unit planted-port python3 -m http.server -b 127.0.0.1 5010; "
        "timeout 30 sh -c 'until ss -Hltn sport = :5010 | grep -q .; do sleep 0.1; done'",
        "systemctl --user stop planted-port; helmctl start codex",
        "port 5010",
        "systemctl --user stop planted-port.service",
    ),
    "certificate expired": PlantedFault(
        f"cd ~/suite/nexus/certs; cp nexus.crt nexus.key ~; python3 -c '{EXPIRED}'; helmctl restart nexus",
        "mv ~/nexus.crt ~/nexus.key ~/suite/nexus/certs/; helmctl restart nexus",
        "the certificate of nexus expired",
        "helmctl restart nexus",
    ),
    "lingering off": PlantedFault(
        "mv /var/lib/systemd/linger/hive /root/",
        "mv /root/hive /var/lib/systemd/linger/",
        "disabled",
        "enable-linger",
        True,
    ),
    "disk full": PlantedFault(
        "mount -t tmpfs -o size=4m tmpfs /home/hive/.local/share/hivematrix; "
        "head -c 4m /dev/zero > /home/hive/.local/share/hivematrix/ballast; true",
        "umount /home/hive/.local/share/hivematrix",
        "of its disk space is free",
        "du -xh",
        True,
    ),
    "database does not answer": PlantedFault(
        f"mv {RUN}/postgres-suite/.s.PGSQL.5499 {RUN}/postgres-suite/moved",
        f"mv {RUN}/postgres-suite/moved {RUN}/postgres-suite/.s.PGSQL.5499",
        "does not answer",
        "systemctl --user restart hivematrix-postgres",
    ),
}


def healthy(box: Sandbox) -> bool:
    done = box.helmctl("doctor", "--json", check=False)
    # A demo needs no backups.
    checked = [each for each in json.loads(done.out)["findings"] if each["check"] != "backups"]
    return done.code == 0 and bool(checked) and all(each["verdict"] == "ok" for each in checked)


@pytest.fixture(scope="module")
def faultless(demo: Sandbox) -> Iterator[None]:
    """A suite in which doctor finds nothing; nor does it once all faults were removed."""
    until(lambda: healthy(demo), 90, 2)
    yield
    until(lambda: healthy(demo), 90, 2)


@pytest.fixture
def suite(demo: Sandbox, faultless: None) -> Sandbox:
    """All services run again. Doctor takes ten times as long; of an earlier fault it would say something else."""
    until(lambda: demo.helmctl("status", check=False).code == 0, 90)
    return demo


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_doctor_finds_a_planted_fault(suite: Sandbox, fault: PlantedFault) -> None:
    suite.shell(fault.plant, root=fault.root, check=False)
    try:
        done = suite.helmctl("doctor", check=False)
    finally:
        suite.shell(fault.remove, root=fault.root, check=False)
    assert done.code == 1, done.text
    lines = done.out.splitlines()
    found = [number for number, line in enumerate(lines) if line.startswith("✗") and fault.said in line]
    assert found and any(fault.fix in lines[number + 1] for number in found), done.text


def test_doctor_finds_a_wrong_clock(suite: Sandbox) -> None:
    suite("apt-get", "install", "--yes", "--no-install-recommends", "faketime", root=True)
    done = suite("faketime", "-f", "-3d", "env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "helmctl", "doctor", check=False)
    assert done.code == 1 and "the clock is behind" in done.out and "timedatectl set-ntp true" in done.out, done.text
