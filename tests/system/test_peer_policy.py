"""A token is not enough: a module of the suite with an admin's token changes nothing, whatever way it takes.

`tests/suite/faulty/planted.py` is that module. The tokens are of a stand-in for Core, which helmd is given for these
tests alone: it knows no session that ends, so that refusals are the peer's.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.replies import faults_in_reply
from tests.system.booted import TOP, Sandbox, run, until
from tests.system.keycloak_admin import session_of_owner
from tests.unit.test_api_document import rows, section, table

LEVELS = {"default": 6141, "strict": 6142, "basic": 6143, "off": 6144}
CORE_PORT = 6140
PORT = 5004
LOOPBACK = "127.0.0.1"
NETWORK, FAR, NEAR = "helm-far", "10.77.0.2", "10.77.0.1"
"""A network namespace that stands for another host, its address, and that of the sandbox as it sees it."""
PLANTED = "/home/hive/suite/faulty/planted.py"
CORE = "/home/hive/peers/core.py"
ANSWERED = ("plainly", "as_ipv6", "by_an_orphan", "by_a_passed_socket")
UNCERTAIN = ("half_closed", "bound_to_loopback_interface")
"""Ways on which a request may come to nothing by itself."""
REFUSED = [403, "peer_refused"]

CORE_STAND_IN = f"""
import json, time
from http.server import BaseHTTPRequestHandler, HTTPServer
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
keys = {{"keys": [{{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k", "n": public["n"], "e": public["e"]}}]}}

def token(level):
    claims = {{"iss": "hivematrix-core", "sub": level, "jti": level, "preferred_username": level + "-of-peers",
              "permission_level": level, "iat": int(time.time()), "exp": int(time.time()) + 3600}}
    return jwt.encode(claims, key, algorithm="RS256", headers={{"kid": "k"}})

class Handler(BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        self.answer(keys if self.path.endswith("jwks.json") else {{"admin": token("admin"), "client": token("client")}})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({{"valid": True, "user": {{}}}})

HTTPServer(("127.0.0.1", {CORE_PORT}), Handler).serve_forever()
"""

REGISTRY = "".join(
    f"""
[services.planted-{level}]
type = "command"
path = "~/suite/faulty"
start_command = ["/usr/bin/python3", "planted.py"]
port = {port}
environment = {{ PORT = "{port}" }}
hardening = "{level}"
"""
    for level, port in LEVELS.items()
)


def changing() -> list[tuple[str, str, bool]]:
    """Method, path and whether a recent login is needed, of every route that changes something."""
    found = []
    for route in table():
        if route.checked:
            path = route.path.replace("{name}", "nosuch")
            found.append((route.method, re.sub(r"\{\w+(:[^}]*)?\}", "7", path), route.recent_login))
    return found


CHANGING = changing()


def checked(found: dict[str, list[list[Any]]]) -> dict[str, list[list[Any]]]:
    """What planted.py has FOUND, once the replies that it saw are as the OpenAPI document says."""
    assert [fault for reply in found.pop("replies") for fault in faults_in_reply(*reply)] == []
    return found


@dataclass
class Setting:
    """The sandbox with helmd on all addresses, the planted modules, and the tokens that they have stolen."""

    box: Sandbox
    admin: str
    machine: str
    lan: str

    def requests(self, address: str, token: str | None = None) -> list[dict[str, str]]:
        """A request for each route that changes something."""
        stolen = self.admin if token is None else token
        return [
            {"url": f"http://{address}:{PORT}{path}", "method": method, "token": stolen} for method, path, _ in CHANGING
        ]

    def planted(self, level: str, ways: tuple[str, ...], requests: list[dict[str, str]]) -> dict[str, list[list[Any]]]:
        """What the module at this level got."""
        work = json.dumps({"ways": ways, "requests": requests})
        url = f"http://127.0.0.1:{LEVELS[level]}/try"
        answer = self.box("curl", "-sS", "--max-time", "120", "--data-binary", "@-", url, stdin=work).out
        return checked(json.loads(answer))

    def outside(
        self, *command: str, token: str | None = None, address: str = LOOPBACK, root: bool = True
    ) -> list[list[Any]]:
        """What a program gets that is started by COMMAND."""
        work = json.dumps({"ways": ["plainly"], "requests": self.requests(address, token)})
        done = self.box(*command, "/usr/bin/python3", PLANTED, "once", stdin=work, root=root)
        return checked(json.loads(done.out))["plainly"]

    def settings(self, text: str) -> None:
        """Other settings for helmd, beside those of these tests."""
        proxies = "" if "trusted_proxies" in text else 'trusted_proxies = ["192.0.2.1"]\n'
        content = f'[http]\nlisten = "0.0.0.0"\n{proxies}{text}\n[core]\nurl = "http://127.0.0.1:{CORE_PORT}"\n'
        self.box.write("/etc/hivematrix/helm.toml", content, root=True)
        self.box("systemctl", "--user", "reload", "helmd")

    def refusals(self) -> list[dict[str, Any]]:
        """What the audit trail has of them."""
        return list(json.loads(self.box.helmctl("audit", "--json", "-n", "1000", "--result", "refused").out))


@pytest.fixture(scope="module")
def setting(demo: Sandbox) -> Iterator[Setting]:
    address = re.search(r"inet (\d+\.\d+\.\d+\.\d+)/", demo("ip", "-4", "addr", "show", "scope", "global").out)
    assert address, "the sandbox has no address but loopback"
    demo.write(CORE, CORE_STAND_IN)
    demo("systemd-run", "--user", "--quiet", "--unit=peers-core", "/usr/bin/python3", CORE)
    made = Setting(demo, "", "", address[1])
    try:
        made.settings("")
        demo.helmctl("apply")
        demo.register("planted", REGISTRY)
        demo.helmctl("start", *(f"planted-{level}" for level in LEVELS))
        tokens = json.loads(until(lambda: demo("curl", "-s", f"http://127.0.0.1:{CORE_PORT}/t", check=False).out, 20))
        made.admin = tokens["admin"]
        made.machine = demo.helmctl("tokens", "create", "peers", "--role", "admin").out.strip()
        yield made
    finally:
        demo("rm", "-f", "/etc/hivematrix/helm.toml", root=True)
        demo.helmctl("tokens", "revoke", "peers", check=False)
        demo.unregister()
        demo.shell("systemctl --user stop peers-core; rm -r ~/peers; helmctl apply", check=False)


@pytest.mark.parametrize("level", ["default", "strict"])
def test_a_module_with_a_stolen_token_changes_nothing(setting: Setting, level: str) -> None:
    """By loopback and by the address in the LAN, on any socket that it can make, with either kind of token."""
    refused = [REFUSED] * len(CHANGING)
    for address in (LOOPBACK, setting.lan):
        for token in (setting.admin, setting.machine):
            found = setting.planted(level, ANSWERED, setting.requests(address, token))
            assert found == dict.fromkeys(ANSWERED, refused)
    found = setting.planted(level, UNCERTAIN, setting.requests(LOOPBACK))
    assert all(result == REFUSED or result[0] == 0 for results in found.values() for result in results), found
    # Both would be the account's own, and are not within reach.
    found = setting.planted(level, ("by_the_unix_socket", "from_a_scope"), setting.requests(LOOPBACK))
    assert all(status == 0 for results in found.values() for status, _ in results), found


def test_the_audit_names_the_unit(setting: Setting) -> None:
    assert setting.planted("default", ("plainly",), setting.requests(LOOPBACK)) == {
        "plainly": [REFUSED] * len(CHANGING)
    }
    refused = [each for each in setting.refusals() if each["unit"] == "hivematrix-planted-default.service"]
    assert {(each["who"], each["via"], each["address"]) for each in refused} >= {("admin-of-peers", "token", LOOPBACK)}
    assert all(each["detail"].startswith("peer_refused: ") for each in refused)
    assert setting.admin not in json.dumps(refused) and setting.machine not in json.dumps(refused)


def test_a_module_that_does_not_wait_is_not_taken_for_another(setting: Setting) -> None:
    """Its process may have ended before it is looked for: then it is unknown, and refused."""
    before = {each["timestamp"] for each in setting.refusals()}
    setting.planted("default", ("without_waiting",), setting.requests(LOOPBACK) * 5)

    def newest() -> list[dict[str, Any]]:
        return [each for each in setting.refusals() if each["timestamp"] not in before]

    # Not all of them: refusals are recorded at a limited rate.
    found = until(newest, 30)
    assert {each["unit"] for each in found} <= {"hivematrix-planted-default.service", "unknown"}
    done = json.loads(setting.box.helmctl("audit", "--json", "--who", "admin-of-peers", "--result", "done").out)
    assert done == []


@pytest.mark.parametrize("level", ["basic", "off"])
def test_without_isolation_a_service_acts_as_the_account(setting: Setting, level: str) -> None:
    """SECURITY.md: its own connections are refused all the same, but it can have others made, or use the socket."""
    requests = setting.requests(LOOPBACK)
    found = setting.planted(level, ("plainly", "by_the_unix_socket", "from_a_scope"), requests)
    assert found["plainly"] == [REFUSED] * len(CHANGING)
    assert all(code not in ("peer_refused", "login_needed", "no_credential") for _, code in found["by_the_unix_socket"])
    assert all(status and code != "peer_refused" for status, code in found["from_a_scope"])


def test_what_holds_with_each_profile_is_as_documented(setting: Setting) -> None:
    """docs/api.md: which requests of a service are taken, and whether doctor names it."""
    checks = json.loads(setting.box.helmctl("doctor", "--json", check=False).out)["findings"]
    named = " ".join(each["sentence"] for each in checks if each["check"] == "isolation").replace(",", "").split()
    ways = ("plainly", "from_a_scope", "by_the_unix_socket")
    stop = {"url": f"http://{LOOPBACK}:{PORT}/api/services/nosuch/stop", "method": "POST", "token": setting.admin}
    words = {(403, "peer_refused"): "refused", (404, "unknown_service"): "taken"}
    found = []
    for level in LEVELS:
        done = setting.planted(level, ways, [stop])
        results = [words.get((status, code), f"{status} {code}") if status else "impossible"
                   for ((status, code),) in (done[way] for way in ways)]  # fmt: skip
        doctor = "names it: it can act as the account" if f"planted-{level}" in named else "does not name it"
        found.append([f"`{level}`", *results, doctor])
    assert rows(section("By hardening profile")) == found


ALLOWED: dict[str, tuple[tuple[str, ...], bool]] = {
    "PAM session": (("runuser", "-l", "hive", "-c", 'exec "$0" "$@"'), True),
    "root": ((), True),
    "scripts/sandbox exec": ((), False),
    "system unit": (("systemd-run", "--quiet", "--pipe", "--wait"), True),
    "scope of the user manager": (("systemd-run", "--user", "--scope", "--quiet"), False),
}
"""How a program is started, and whether root does that."""


def passes(results: list[list[Any]]) -> bool:
    """Whether the routes are open to the peer: what it asks for is refused for the lack of a recent login at most."""
    recent = [needed for *_, needed in CHANGING]
    return all(
        (code == "login_needed") if needed else code not in ("peer_refused", "bad_token", "no_credential")
        for (_, code), needed in zip(results, recent, strict=True)
    )


@pytest.mark.parametrize("who", ALLOWED)
def test_who_may_change_something(setting: Setting, who: str) -> None:
    command, root = ALLOWED[who]
    for address in (LOOPBACK, setting.lan):
        found = setting.outside(*command, root=root, address=address)
        assert passes(found), found


def test_a_service_of_the_account_may_if_it_is_trusted(setting: Setting) -> None:
    command = ("systemd-run", "--user", "--quiet", "--pipe", "--wait", "--unit=peers-backup")
    assert setting.outside(*command, root=False) == [REFUSED] * len(CHANGING)
    setting.settings('trusted_units = ["peers-*.service"]')
    try:
        assert passes(setting.outside(*command, root=False))
    finally:
        setting.settings("")


@contextmanager
def network_of_another_host(box: Sandbox) -> Iterator[None]:
    """Of the address FAR. Made from outside the sandbox, which may not change a network that it shares."""
    inside = f"nsenter --net=/proc/{box.leader}/ns/net ip"
    script = f"""
        ip netns add {NETWORK}
        {inside} link add helm-far type veth peer name helm-near netns {NETWORK}
        {inside} addr add {NEAR}/24 dev helm-far
        {inside} link set helm-far up
        ip -n {NETWORK} addr add {FAR}/24 dev helm-near
        ip -n {NETWORK} link set helm-near up
    """
    words = ["sh", "-euc", script]
    try:
        run(words, 60).check(words)
        yield
    finally:
        run(["sh", "-c", f"{inside} link del helm-far; ip netns del {NETWORK}"], 60)


def test_another_host(setting: Setting) -> None:
    def elsewhere(token: str = "", cookie: str = "") -> list[list[Any]]:
        requests = [{**each, "cookie": cookie} for each in setting.requests(NEAR, token)]
        work = json.dumps({"ways": ["plainly"], "requests": requests})
        program = str(TOP / "tests/suite/faulty/planted.py")
        words = ["ip", "netns", "exec", NETWORK, "/usr/bin/python3", program, "once"]
        done = run(words, 120, work)
        done.check(words)
        return checked(json.loads(done.out))["plainly"]

    own = session_of_owner(setting.box)
    with network_of_another_host(setting.box):
        # What a module got of a browser, and passed on: it is good on this host alone.
        assert elsewhere(cookie=own) == [[401, "no_credential"]] * len(CHANGING)
        assert elsewhere(setting.admin) == [REFUSED] * len(CHANGING)
        assert passes(elsewhere(setting.machine))
        setting.settings(f'trusted_proxies = ["{FAR}"]')
        try:
            assert passes(elsewhere(setting.admin))
        finally:
            setting.settings("")
    refused = [each for each in setting.refusals() if each["address"] == FAR]
    assert {each["unit"] for each in refused} == {"elsewhere"}


def test_a_machine_token_works_without_postgresql_and_ends_at_once(setting: Setting) -> None:
    box, url = setting.box, f"http://127.0.0.1:{PORT}/api/services/status"

    def status() -> str:
        config = (
            f'silent\noutput = "/dev/null"\nwrite-out = "%{{http_code}}"\nheader = "Authorization: Bearer {secret}"\n'
        )
        return box("curl", "--config", "-", url, stdin=config).out

    box("systemctl", "--user", "stop", "helmd-postgres")
    try:
        secret = box.helmctl("tokens", "create", "brief", "--role", "client", "--expires", "1h").out.strip()
        assert status() == "200"
        box.helmctl("tokens", "revoke", "brief")
        assert status() == "401"
    finally:
        box("systemctl", "--user", "start", "helmd-postgres")
    assert secret not in box.helmctl("logs", "--journal", "helm", "--since", "10 min ago").out
    assert box("stat", "-c", "%a", "/home/hive/.config/hivematrix/secrets/tokens.json").out.strip() == "600"


def test_what_systemctl_does_is_shown_as_outside_helm(setting: Setting) -> None:
    box, unit = setting.box, "hivematrix-planted-off.service"

    def changes() -> list[tuple[str, str, str]]:
        shown = json.loads(box.helmctl("audit", "--json", "--service", "planted-off", "--since", since).out)
        return [(each["who"], each["action"], each["result"]) for each in shown]

    since = box("date", "+%Y-%m-%d %H:%M:%S").out.strip()
    box("systemctl", "--user", "restart", unit)
    outside = [("outside Helm", "restart", "done")]
    until(lambda: changes() == outside, 30)
    # A command explains jobs that began up to a second before it.
    ended = time.monotonic()
    until(lambda: time.monotonic() > ended + 1.5, 5)
    box.helmctl("restart", "planted-off")
    assert until(lambda: changes()[1:], 10) == [("hive", "restart", "done")]
    assert changes()[:1] == outside
