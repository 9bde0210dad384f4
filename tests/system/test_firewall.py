"""The firewall in a sandbox of its own: real rules, a real sshd, the real timer; a second namespace is the client.

Stages rest on one another, as in test_package.py. While each tool's rules come and go, somebody stays logged in over
SSH, and somebody else connects to it ten times a second.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helmd.model.security.firewall import FIREWALL_KINDS
from helmd.model.security.firewall_state import FirewallState, firewall_state_of
from tests.system.booted import CommandResult, Sandbox, until
from tests.system.packaged import booted_machine

NAME = "firewall"
HERE = ("10.77.0.1", "fd77::1")
"""The addresses of the machine with the firewall."""
SSH = (22, 2222)
GATEWAY, CUSTOM, UNDECLARED = 443, 7000, 9999
ALL = {GATEWAY, CUSTOM, UNDECLARED, *SSH}
OPEN = {GATEWAY, *SSH}
NEEDED = (
    *("python3-click", "python3-systemd", "python3-pystemd", "debconf", "adduser"),
    *("python3-cryptography", "python3-jinja2", "python3-psycopg"),
)
"""What helmctl needs, the security audit included."""
STATE, UNIT = "/var/lib/hivematrix-firewall", "/etc/systemd/system/hivematrix-firewall-rules.service"
SUITE = f"""
[services.nexus]
[services.core]
[services.keycloak]
[services.custom]
type = "command"
start_command = ["/bin/true"]
port = {CUSTOM}
url = "http://0.0.0.0:{CUSTOM}"
"""
NETWORK = f"""
ip netns add client
ip link add there type veth peer name here netns client
ip address add {HERE[0]}/24 dev there && ip address add {HERE[1]}/64 dev there nodad && ip link set there up
ip -n client link set lo up
ip -n client address add 10.77.0.2/24 dev here && ip -n client address add fd77::2/64 dev here nodad
ip -n client link set here up
systemd-run --quiet --unit=listening /usr/bin/python3 /root/listen.py {GATEWAY} {UNDECLARED}
"""
LISTEN = """
import socket, sys, time
kept = []
for port in sys.argv[1:]:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        kept.append(made := socket.socket(family))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, int(port)))
        made.listen(100)
time.sleep(3600)
"""
ASK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def ask(target):
    try:
        socket.create_connection(target, 1.5).close()
        return True
    except OSError:
        return False
targets = [(address, int(port)) for address in sys.argv[1].split(",") for port in sys.argv[2:]]
with ThreadPoolExecutor(20) as pool:
    print(json.dumps([target for target, answered in zip(targets, pool.map(ask, targets)) if answered]))
"""
KNOCK = """
import socket, time
while True:
    try:
        with socket.create_connection(("10.77.0.1", 22), 2) as connection:
            print("greeted" if connection.recv(4) == b"SSH-" else "silent", flush=True)
    except OSError as error:
        print("failed", error, flush=True)
    time.sleep(0.1)
"""
# The other end of a connection that this machine makes, and on which only the other side sends.
SEND = """
import socket, time
listening = socket.create_server(("10.77.0.2", 8000))
while True:
    connection, _ = listening.accept()
    with connection:
        try:
            while True:
                connection.sendall(b"x")
                time.sleep(0.2)
        except OSError:
            pass
"""
RECEIVE = """
import socket
connection = socket.create_connection(("10.77.0.2", 8000))
while connection.recv(100):
    print("received", flush=True)
"""
LOGIN = "ip netns exec client ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o ConnectTimeout=3"


class Firewalled:
    """The machine, as root sees it, and as others do."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box

    def root(self, command: str, check: bool = True, timeout: float = 120) -> CommandResult:
        return self.box.shell(command, root=True, check=check, timeout=timeout)

    def connect(self) -> None:
        """Make the second namespace and what listens: a boot has neither."""
        self.root(NETWORK)
        # As the service's own unit, which the audit asks for.
        unit = ("systemd-run", "--user", "--quiet", "--unit=hivematrix-custom")
        self.box(*unit, "/usr/bin/python3", "/home/hive/listen.py", str(CUSTOM))
        until(lambda: self.reached("127.0.0.1") == ALL, 30)

    def apply(self, words: str, check: bool = True) -> CommandResult:
        return self.root(f"helmctl --account hive security apply {words}", check)

    def reached(self, *addresses: str) -> set[int]:
        """The ports that answer the client at all of the addresses; over loopback, asked from this machine."""
        where = "" if addresses == ("127.0.0.1",) else "ip netns exec client"
        ports = " ".join(map(str, sorted(ALL)))
        found = json.loads(self.root(f"{where} python3 /root/ask.py {','.join(addresses)} {ports}").out)
        by_address = [{port for address, port in found if address == each} for each in addresses]
        assert all(each == by_address[0] for each in by_address), found
        return by_address[0]

    def rules(self) -> str:
        """All rules of this machine and policies that drop, without counters, and without chains that are empty."""
        saved = "iptables-save -t filter; ip6tables-save -t filter"
        command = f"nft --stateless list ruleset inet; ({saved}) | grep -e ^-A -e DROP; ufw show added"
        return "\n".join(line.partition(" [")[0] for line in self.root(command).out.splitlines())

    def audit(self) -> dict[str, Any]:
        """The account's own security audit."""
        found: dict[str, Any] = json.loads(self.box.helmctl("security", "audit", "--json").out)
        return found

    def state(self) -> FirewallState:
        """What the package's service says to an ordinary account."""
        command = (
            'python3 -c \'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/run/hivematrix-firewall.sock")'
        )
        return firewall_state_of(self.box.shell(f"{command}; print(s.makefile().read())'").out.encode())

    def log_in(self) -> None:
        """A new login over SSH, at each address and port."""
        self.root("; ".join(["set -e", *(f"{LOGIN} -p {port} root@{each} true" for each in HERE for port in SSH)]))

    @contextmanager
    def used(self) -> Iterator[None]:
        """While it lasts, nobody may be locked out: a login that is there, a connection, a new login."""
        started = {
            "knocking": "ip netns exec client python3 /root/knock.py",
            "logged-in": f"{LOGIN} root@10.77.0.1 'while echo alive; do sleep 0.1; done'",
            "sending": "ip netns exec client python3 /root/send.py",
            "receiving": "python3 /root/receive.py",
        }
        run = "systemd-run --quiet --collect -p StandardOutput=truncate:/root"
        commands = [
            f'{run}/{name} --unit={name} sh -c "sleep {name == "receiving":d}; {command}"'
            for name, command in started.items()
        ]
        self.root("; ".join(["set -e", *commands]))
        began = time.monotonic()
        try:
            yield
            self.check_alive(time.monotonic() - began)
        finally:
            self.root(f"systemctl stop {' '.join(started)}", check=False)

    def check_alive(self, lasted: float) -> None:
        """Fails the test if somebody was locked out in the last seconds, LASTED, or is now."""
        count = "wc -l < /root/logged-in; wc -l < /root/receiving"
        *numbers, knocks = self.root(f"{count}; sleep 1; {count}; sort /root/knocking | uniq -c").out.splitlines()
        before, after = [int(each) for each in numbers[:2]], [int(each) for each in numbers[2:]]
        assert len(numbers) == 4 and knocks.split()[1:] == ["greeted"], (numbers, knocks)
        assert int(knocks.split()[0]) > 4 * lasted
        assert all(number > 2 * lasted for number in before)
        assert all(one < other for one, other in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Firewalled]:
    with booted_machine(NAME, {package: "/root/helm.deb"}) as box:
        made = Firewalled(box)
        box.apt("update --quiet")
        box.apt(f"install nftables iptables ufw openssh-server openssh-client iproute2 {' '.join(NEEDED)}")
        # The suite's services are none of this, so neither is PostgreSQL.
        made.root("dpkg --force-depends --install /root/helm.deb")
        for name, text in (("listen", LISTEN), ("ask", ASK), ("knock", KNOCK), ("send", SEND), ("receive", RECEIVE)):
            box.write(f"/root/{name}.py", text, root=True)
        box.write("/home/hive/listen.py", LISTEN)
        box.write("/home/hive/.config/hivematrix/services.toml", SUITE)
        box.write("/etc/ssh/sshd_config.d/test.conf", "Port 22\nPort 2222\nMaxStartups 100\n", root=True)
        # Debian 13's sshd refuses for a while who connects often without a login, as the test does.
        option = "PerSourcePenalties no"
        made.root(f"! sshd -T -o '{option}' > /dev/null 2>&1 || echo {option} >> /etc/ssh/sshd_config.d/test.conf")
        made.root(
            "cd /root/.ssh || mkdir -m 700 /root/.ssh && cd /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f id_ed25519"
            "; cp id_ed25519.pub authorized_keys"
        )
        made.root("systemctl restart ssh")
        made.connect()
        made.log_in()
        yield made


@pytest.fixture(scope="module")
def untouched(machine: Firewalled) -> str:
    """The rules before any of Helm's."""
    assert machine.reached(*HERE) == ALL
    assert machine.state() == FirewallState("", "", False, "accept", machine.state().ipv4, machine.state().ipv6)
    return machine.rules()


def test_a_dry_run_shows_what_would_be_closed_and_changes_nothing(machine: Firewalled, untouched: str) -> None:
    # Any account can run a program of that name.
    machine.root(
        "cp -L /usr/bin/python3 /tmp/sshd; systemd-run --quiet --uid=hive --unit=fake /tmp/sshd -m http.server 9998"
    )
    until(lambda: machine.root("ss -Hltn sport = :9998").out, 30)
    shown = machine.apply("nftables --dry-run --open 51820/udp --allow-from 10.77.0.0/24").out
    for line in ("open to all: tcp 22 (SSH)", "open to all: tcp 2222 (SSH)", "open to 10.77.0.0/24: tcp 443 (nexus)"):
        assert line in shown
    assert "udp 51820 (by-request)" in shown and "tcp 7000 (custom)" in shown
    machine.root("systemctl stop fake")
    assert "tcp 9998 (SSH)" not in shown and "tcp 0.0.0.0:9998  sshd" in shown
    assert "tcp 0.0.0.0:9999  python3" in shown and "tcp dport { 22, 2222 } accept" in shown
    assert machine.rules() == untouched
    assert machine.root(f"ls {STATE} {UNIT}", check=False).out == ""
    audit = machine.audit()
    assert [each["service"] for each in audit["firewall_required"]] == ["custom"] and not audit["firewall_protected"]
    assert audit["firewall_status"] == {"active": False, "type": None, "protected_ports": []}
    assert "firewall-inactive" in {each["kind"] for each in audit["findings"]}
    denied = machine.box.helmctl("security", "apply", "nftables", check=False)
    assert denied.code == 77 and "sudo helmctl security apply nftables" in denied.err


@pytest.mark.parametrize("kind", FIREWALL_KINDS)
def test_nobody_is_locked_out_and_what_is_not_confirmed_is_undone(
    machine: Firewalled, untouched: str, kind: str
) -> None:
    with machine.used():
        began = time.monotonic()
        said = machine.apply(f"{kind} --confirm-within 10").out
        applied = time.monotonic()
        assert "sudo helmctl security confirm" in said
        assert machine.reached(*HERE) == OPEN
        assert machine.reached("127.0.0.1") == ALL
        machine.log_in()
        state = machine.state()
        assert (state.unknown, state.kind, state.policy) == ("", kind, "drop")
        assert {port for port in ALL if state.reach(port) == "open"} == OPEN
        until(lambda: machine.root(f"test -e {STATE}/pending", check=False).code == 1, 15)
        reverted = time.monotonic()
        print(f"{kind}: applied after {applied - began:.1f} s, reverted after {reverted - began:.1f} s")
        assert machine.reached(*HERE) == ALL

        # Twice equals once; what is confirmed stays; another tool is refused; all of it can be undone.
        machine.apply(f"{kind} --confirm-within 60")
        once = machine.rules()
        machine.apply(f"{kind} --confirm-within 10")
        assert machine.rules() == once
        machine.root("helmctl security confirm")
        other = next(each for each in FIREWALL_KINDS if each != kind)
        refused = machine.apply(other, check=False)
        assert refused.code == 1 and "nothing was changed" in refused.err, refused.text
        again = machine.root("helmctl security confirm", check=False)
        assert again.code == 1 and "no rules wait" in again.err
        assert machine.rules() == once
        assert machine.reached(*HERE) == OPEN
        audit = machine.audit()
        assert [(each["service"], each["status"]) for each in audit["firewall_protected"]] == [("custom", "protected")]
        assert not audit["firewall_required"] and not audit["exposed_services"]
        assert (audit["firewall_status"]["active"], audit["firewall_status"]["type"]) == (True, kind)
        assert CUSTOM in audit["firewall_status"]["protected_ports"]
        assert not {each["kind"] for each in audit["findings"]} & {"firewall-inactive", "wide-binding"}
        machine.root("helmctl security undo")
    assert machine.reached(*HERE) == ALL
    assert "HIVEMATRIX" not in machine.rules() and "hivematrix" not in machine.rules()
    assert machine.root(f"ls {STATE} {UNIT}", check=False).out == ""
    assert machine.root("systemctl --failed --plain --no-legend").out == ""


def test_the_rules_of_others_stay(machine: Firewalled, untouched: str) -> None:
    """A list of banned addresses, a container engine's chains; an admin's rules with ufw."""
    machine.root(
        "nft add table inet bans && nft 'add chain inet bans in { type filter hook input priority -1; }'"
        " && nft add rule inet bans in ip saddr 192.0.2.1 drop"
        " && iptables -N ENGINE && iptables -A FORWARD -j ENGINE && iptables -A INPUT -p tcp --dport 9999 -j ACCEPT"
    )
    before = machine.rules()
    machine.apply("iptables")
    assert machine.reached(*HERE[:1]) == OPEN | {UNDECLARED} and machine.reached(*HERE[1:]) == OPEN
    machine.root("helmctl security undo")
    assert machine.rules() == before
    machine.root("nft delete table inet bans; iptables -D FORWARD -j ENGINE; iptables -X ENGINE; iptables -D INPUT 1")
    machine.root("ufw allow 9999/tcp comment mine; ufw limit 22/tcp; ufw --force enable; ufw allow 8000/tcp")
    before = machine.rules()
    refused = machine.apply("nftables", check=False)
    assert refused.code == 1 and "ufw is active" in refused.err
    machine.apply("ufw --allow-from 10.77.0.0/24 --allow-from fd77::/64")
    assert machine.reached(*HERE) == OPEN | {UNDECLARED}
    assert machine.state().reach(GATEWAY) == "limited"
    machine.root("helmctl security confirm && helmctl security undo")
    assert machine.rules() == before
    machine.root("ufw --force disable; ufw --force delete limit 22/tcp; ufw --force reset; nft flush ruleset")


def test_a_reboot_keeps_what_was_confirmed_and_undoes_what_was_not(machine: Firewalled, untouched: str) -> None:
    machine.apply("nftables")
    machine.root("helmctl security confirm")
    machine.apply(f"nftables --open {UNDECLARED} --confirm-within 600")
    assert machine.reached(*HERE) == OPEN | {UNDECLARED}
    machine.box.script("reboot").check(["reboot"])
    machine.connect()
    assert machine.reached(*HERE) == OPEN
    assert machine.root(f"ls {STATE}").out.split() == ["confirmed"]
    # What removes all rules brings Helm's back.
    machine.root("systemctl restart nftables")
    until(lambda: machine.reached(*HERE) == OPEN, 30)
    machine.root("helmctl security undo")

    machine.apply("ufw --confirm-within 600")
    assert machine.reached(*HERE) == OPEN
    machine.box.script("reboot").check(["reboot"])
    machine.connect()
    assert machine.reached(*HERE) == ALL
    assert "inactive" in machine.root("ufw status").out and "hivematrix" not in machine.rules()
    assert machine.root(f"ls {STATE}/pending {UNIT}", check=False).out == ""


def test_a_purge_takes_the_rules_away(machine: Firewalled) -> None:
    machine.apply("nftables")
    machine.root("helmctl security confirm")
    machine.root("DEBIAN_FRONTEND=noninteractive dpkg --purge hivematrix-helm")
    # The suite's own services have been stopped.
    assert machine.reached(*HERE) == ALL - {CUSTOM}
    left = "ls -d /run/hivematrix-firewall* /etc/systemd/system/*hivematrix* /etc/systemd/system/*/*hivematrix*"
    assert machine.root(f"{left} {STATE} /lib/systemd/system/hivematrix*", check=False).out == ""
