"""Ordinary programs run under the default hardening: in Python, PyPy, Java, Node, PHP, Go and Rust, from Debian and
PyPI, also with interpreters below the home directory. What fails by the sandbox is explained.
"""

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.booted import Sandbox, until

HOME = "/home/hive"
PLACE = f"{HOME}/programs"
BASE = f"{HOME}/.pyenv/versions/of-the-test"
NODE = f"{HOME}/.nvm/versions/node/of-the-test"
WEB = f"{HOME}/venvs/web"
OF_ROOT = "/opt/of-root"

DEBIAN = "gunicorn python3-venv python3-psutil nodejs php-cli nginx-light redis-server pypy3 default-jdk-headless sudo"
DEBIAN += " caddy"
PYPI = "gunicorn gevent uvicorn celery[redis] sccache psutil"

WSGI = r"""
import json, os, pathlib, socket, subprocess, sys

def application(environ, start_response):
    os.setuid(os.getuid())
    os.chown("written", os.getuid(), os.getgid())
    cache = pathlib.Path.home() / ".cache/of-the-program"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "file").write_text("kept")
    import psutil
    asked = subprocess.run(["python3", "-c", "import sys; print(sys.prefix)"], stdout=subprocess.PIPE, check=True)
    found = {
        "prefix": sys.prefix, "base": sys.base_prefix, "of_subprocess": asked.stdout.decode().strip(),
        "environment": os.environ.get("VIRTUAL_ENV"), "home": os.environ["HOME"],
        "interfaces": sorted(psutil.net_if_addrs()), "names": [name for _, name in socket.if_nameindex()],
        "services": sorted(json.load(open(os.environ["HIVEMATRIX_SERVICES_JSON"]))),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]

open("written", "w").close()
"""

ASGI = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"from uvicorn"})
"""

TASKS = """
import celery
app = celery.Celery("tasks", broker="redis://127.0.0.1:6210/0", backend="redis://127.0.0.1:6210/1")

@app.task
def add(one, other):
    return one + other
"""

SERVE_NODE = 'require("http").createServer((q, a) => a.end("from node")).listen(6204, "127.0.0.1")'

SERVE_JAVA = """
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

public class Serve {
    public static void main(String[] given) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 6205), 0);
        server.createContext("/", exchange -> {
            byte[] body = "from java".getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
"""

SERVE_PYPY = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"%d" % sum(i * i for i in range(1000000)))

http.server.ThreadingHTTPServer(("127.0.0.1", 6206), Handler).serve_forever()
"""

NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
    server { listen 127.0.0.1:6208; location / { return 200 "from nginx"; } }
}
"""

FILES = {
    "gunicorn-debian/app.py": WSGI,
    "gunicorn-pypi/app.py": WSGI,
    "uvicorn/app.py": ASGI,
    "celery/tasks.py": TASKS,
    "node/serve.js": SERVE_NODE,
    "java/Serve.java": SERVE_JAVA,
    "php/index.php": 'from <?php echo "php";',
    "pypy/serve.py": SERVE_PYPY,
    "nginx/nginx.conf": NGINX,
    "caddy/index.html": "from caddy",
}

HEALTH_AT_TOP = 'health = { path = "/", start_timeout = "60s" }'


def service(name: str, command: str, port: int | None = None, more: str = "", path: str = "") -> str:
    words = json.dumps(shlex.split(command))
    listens = f"port = {port}\n" if port else ""
    place = path or f"{PLACE}/{name}"
    return f'[services.{name}]\ntype = "command"\npath = "{place}"\nstart_command = {words}\n{listens}{more}\n'


REGISTRY = "".join(
    [
        service("gunicorn-debian", "/usr/bin/gunicorn -b 127.0.0.1:6201 app:application", 6201, HEALTH_AT_TOP),
        f'[services.gunicorn-pypi]\npath = "{PLACE}/gunicorn-pypi"\nport = 6202\n{HEALTH_AT_TOP}\n'
        'start_command = ["pyenv/bin/gunicorn", "-k", "gevent", "-b", "127.0.0.1:6202", "app:application"]\n',
        service("uvicorn", f"{WEB}/bin/uvicorn --port 6203 app:application", 6203, HEALTH_AT_TOP),
        service("celery", f"{WEB}/bin/celery -A tasks worker --concurrency 1", None, 'depends_on = ["redis"]'),
        service("node", f"{NODE}/bin/node serve.js", 6204, HEALTH_AT_TOP),
        service("java", "/usr/bin/java Serve.java", 6205, HEALTH_AT_TOP),
        service("pypy", "/usr/bin/pypy3 serve.py", 6206, HEALTH_AT_TOP),
        service("php", "/usr/bin/php -S 127.0.0.1:6207", 6207, HEALTH_AT_TOP),
        service("nginx", f"/usr/sbin/nginx -e stderr -p {PLACE}/nginx -c nginx.conf", 6208, HEALTH_AT_TOP),
        service("caddy", "/usr/bin/caddy file-server --listen 127.0.0.1:6209", 6209, HEALTH_AT_TOP),
        service("redis", "/usr/bin/redis-server --port 6210 --bind 127.0.0.1", 6210, 'health = { check = "port" }'),
        service(
            "sccache", f"{WEB}/bin/sccache", 6211,
            'health = { check = "port" }\nenvironment = { SCCACHE_START_SERVER = "1", SCCACHE_NO_DAEMON = "1", '
            'SCCACHE_SERVER_PORT = "6211" }',
        ),
        service(
            "of-root", "/usr/bin/python3 -m http.server -b 127.0.0.1 6212", 6212,
            f"{HEALTH_AT_TOP}\nservices_json = true", OF_ROOT,
        ),
    ]
)  # fmt: skip
NAMES = re.findall(r"^\[services\.(.*)\]$", REGISTRY, re.M)


def pip_settings() -> dict[str, str]:
    """By what pip reaches its index from this machine."""
    found = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    return {key: value for key, value in found.items() if key not in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE")}


@pytest.fixture(scope="module")
def programs(demo: Sandbox) -> Iterator[Sandbox]:
    """All of them, installed and started, each with the default hardening."""
    # Debian starts daemons when it installs them.
    install = f"""
    printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends {DEBIAN} > /dev/null
    rm /usr/sbin/policy-rc.d
    mkdir -p {OF_ROOT}; echo from root > {OF_ROOT}/index.html
    """
    demo.shell(f"set -eu; {install}", root=True, timeout=400)
    # The interpreters of the system, as if pyenv and nvm had installed them.
    version = demo.shell("python3 -c 'import sys; print(\"python%d.%d\" % sys.version_info[:2])'").out.strip()
    settings = Path("/etc/pip.conf")
    demo.write("/tmp/pip.conf", settings.read_text() if settings.exists() else "")
    pip = " ".join(f"{key}={shlex.quote(value)}" for key, value in pip_settings().items())
    demo.shell(
        f"""
        set -eu
        mkdir -p {BASE}/bin {BASE}/lib {NODE}/bin {NODE}/lib/node_modules {HOME}/venvs
        cp /usr/bin/{version} {BASE}/bin/; ln -s {version} {BASE}/bin/python3; cp /usr/bin/node {NODE}/bin/
        cp -r /usr/lib/{version} {BASE}/lib/
        {BASE}/bin/python3 -m venv {WEB}
        PIP_CONFIG_FILE=/tmp/pip.conf {pip} {WEB}/bin/pip install --quiet {PYPI}
        mkdir -p {PLACE}/gunicorn-pypi {PLACE}/redis {PLACE}/sccache
        ln -s ../../venvs/web {PLACE}/gunicorn-pypi/pyenv
        """,
        timeout=400,
    )
    for name, text in FILES.items():
        demo.write(f"{PLACE}/{name}", text)
    try:
        demo.register("programs", REGISTRY)
        demo.helmctl("start", *NAMES, timeout=300, check=False)
        yield demo
    finally:
        demo.unregister()
        demo.shell(f"rm -rf {PLACE} {HOME}/venvs {HOME}/.pyenv {HOME}/.nvm /tmp/pip.conf")
        demo("rm", "-r", OF_ROOT, root=True)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_healthy(programs: Sandbox, name: str) -> None:
    (status,) = programs.status(name).values()
    assert status["health"] in ("healthy", "running"), programs.helmctl("why", name).out
    unit = programs("cat", f"{HOME}/.local/share/systemd/user/hivematrix-{name}.service").out
    assert "PrivateUsers=yes" in unit and "MemoryDenyWriteExecute" not in unit


def fetched(box: Sandbox, port: int, path: str = "") -> str:
    return box("curl", "-sS", "--max-time", "20", f"http://127.0.0.1:{port}/{path}").out


@pytest.mark.parametrize(
    ("port", "answer"),
    [
        (6203, "from uvicorn"), (6204, "from node"), (6205, "from java"), (6206, "333332833333500000"),
        (6207, "from php"), (6208, "from nginx"), (6209, "from caddy"), (6212, "from root"),
    ],
)  # fmt: skip
def test_it_answers(programs: Sandbox, port: int, answer: str) -> None:
    assert fetched(programs, port).strip() == answer


@pytest.mark.parametrize(("name", "port"), [("gunicorn-debian", 6201), ("gunicorn-pypi", 6202)])
def test_gunicorn(programs: Sandbox, name: str, port: int) -> None:
    """It changes to its own user, and its application lists interfaces, writes a cache and runs its interpreter."""
    found = json.loads(fetched(programs, port))
    home = f"{HOME}/.local/state/hivematrix/homes/{name}"
    assert found["home"] == home and programs("cat", f"{home}/.cache/of-the-program/file").out == "kept"
    assert "lo" in found["interfaces"] and found["names"]
    assert {"core", "helm"} <= set(found["services"])
    if name == "gunicorn-pypi":
        # The script names its interpreter by the environment's own path, whatever links lead to it.
        assert (found["prefix"], found["base"]) == (WEB, BASE)
        assert found["environment"] == found["of_subprocess"] == f"{PLACE}/gunicorn-pypi/pyenv"


def test_celery(programs: Sandbox) -> None:
    ask = "from tasks import add; print(add.delay(2, 3).get(timeout=30))"
    assert programs("env", "-C", f"{PLACE}/celery", f"{WEB}/bin/python", "-c", ask).out == "5\n"


def test_redis(programs: Sandbox) -> None:
    assert programs("redis-cli", "-p", "6210", "set", "key", "value").out == "OK\n"
    assert programs("redis-cli", "-p", "6210", "save").out == "OK\n", "it writes into its own directory"


def test_a_directory_of_root(programs: Sandbox) -> None:
    """It is not written to; a line says where services.json is."""
    assert programs("ls", OF_ROOT).out == "index.html\n"
    assert "services.json of of-root was not written" in programs.helmctl("apply").err
    printed = programs("journalctl", "--user", "-u", "hivematrix-of-root", "-o", "cat").out
    assert f"{OF_ROOT} has no services.json: this account may not write there; HIVEMATRIX_SERVICES_JSON" in printed


def test_diff_shows_what_is_bound(programs: Sandbox) -> None:
    """A base that was moved is a change, which apply makes."""
    unit = programs("cat", f"{HOME}/.local/share/systemd/user/hivematrix-uvicorn.service").out
    assert f"BindReadOnlyPaths=-{WEB}\n" in unit and f"BindReadOnlyPaths=-{BASE}\n" in unit
    moved = f"{HOME}/.pyenv/versions/moved"
    programs.shell(f"cp -r {BASE} {moved}; sed -i.before 's,^home = .*,home = {moved}/bin,' {WEB}/pyvenv.cfg")
    try:
        assert f"+BindReadOnlyPaths=-{moved}" in programs.helmctl("diff", "uvicorn", check=False).out
    finally:
        programs.shell(f"mv {WEB}/pyvenv.cfg.before {WEB}/pyvenv.cfg; rm -r {moved}")
    assert programs.helmctl("diff", "uvicorn").code == 0


@pytest.mark.parametrize("name", ["node", "java", "pypy"])
def test_why_names_what_strict_does_not_allow(programs: Sandbox, name: str) -> None:
    path = f"{HOME}/.config/hivematrix/services.d/programs.toml"
    strict = REGISTRY.replace(f"[services.{name}]\n", f'[services.{name}]\nhardening = "strict"\n')
    programs.write(path, strict)
    try:
        programs.helmctl("apply", name)
        assert programs.helmctl("restart", name, check=False, timeout=120).code == 1
        explained = " ".join(programs.helmctl("why", name).out.split())
        assert "(MemoryDenyWriteExecute=)" in explained and 'hardening = "default" allows it' in explained, explained
    finally:
        programs.write(path, REGISTRY)
        programs.helmctl("apply", name)
    assert programs.helmctl("restart", name).code == 0


FAILURES = {
    "read-only": (
        "/usr/bin/python3 -c \"open('/var/lib/app.db', 'w')\"", "default", "ProtectSystem=",
        'writable_paths = ["/var/lib"]',
    ),
    "hidden": (
        f"/usr/bin/cat {HOME}/shared/data.txt", "default", "ProtectHome=", f'readable_paths = ["{HOME}/shared"]',
    ),
    "netlink": (
        '/usr/bin/python3 -c "import socket; socket.if_nameindex()"', "strict", "RestrictAddressFamilies=",
        'hardening = "default" allows AF_NETLINK',
    ),
    "owner": (
        "/usr/bin/python3 -c \"import os; os.setuid(os.getuid())\"", "strict", "SystemCallFilter=",
        'hardening = "default" allows chown and setuid',
    ),
    "another-owner": ("/usr/bin/chown root /tmp", "default", "PrivateUsers=", "run as the account"),
    "namespaces": ("/usr/bin/unshare -n true", "default", "RestrictNamespaces=", "drop-in"),
    "sudo": ("/usr/bin/sudo true", "default", "NoNewPrivileges=", 'hardening = "off"'),
    "device": ("/usr/bin/cat /dev/of-the-test", "default", "PrivateDevices=", 'hardening = "basic"'),
    "bus": ("/usr/bin/cat /run/user/1000/bus", "default", "ProtectHome=", "act as the account"),
    "home": ("/usr/bin/true", "default", "BindPaths=", "helmctl apply"),
    "32-bit": (f"{PLACE}/32-bit/call", "default", "SystemCallArchitectures=", "drop-in"),
}  # fmt: skip
"""What a program does, under which profile, and the directive and the setting that are named."""

CALL = """
import ctypes, mmap, tempfile
file = tempfile.TemporaryFile()
file.write(b"\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3")
file.flush()
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
ctypes.CFUNCTYPE(ctypes.c_int)(libc.mmap(None, 4096, 5, 2, file.fileno(), 0))()
"""


@pytest.fixture(scope="module")
def failing(programs: Sandbox) -> Iterator[Sandbox]:
    """Services that fail by their sandbox, each in one way."""
    demo = programs
    demo.shell(f"mkdir -p {HOME}/shared; echo data > {HOME}/shared/data.txt")
    demo.write("/dev/of-the-test", "x", root=True)
    entries = []
    for name, (command, profile, _, _) in FAILURES.items():
        demo.write(f"{PLACE}/{name}/call", f"#!/usr/bin/python3\n{CALL}")
        demo("chmod", "755", f"{PLACE}/{name}/call")
        more = f'hardening = "{profile}"\nrestart = {{ policy = "no" }}\nstreams = "merged"'
        entries.append(service(f"fails-{name}", command, None, more, f"{PLACE}/{name}"))
    try:
        demo.register("failing", "".join(entries))
        demo("rm", "-r", f"{HOME}/.local/state/hivematrix/homes/fails-home")
        demo.helmctl("start", *[f"fails-{name}" for name in FAILURES], check=False)
        yield demo
    finally:
        demo.unregister()
        demo.shell(f"rm -rf {HOME}/shared")
        demo("rm", "-f", "/dev/of-the-test", root=True)


@pytest.mark.parametrize("name", FAILURES)
def test_why_names_the_directive_and_the_setting(failing: Sandbox, name: str) -> None:
    _, _, directive, setting = FAILURES[name]
    until(lambda: "failed" in failing.helmctl("status", f"fails-{name}", check=False).out, 30)
    explained = " ".join(failing.helmctl("why", f"fails-{name}").out.split())
    assert f"({directive})" in explained and setting in explained, explained


def test_readable_paths_show_what_was_hidden(failing: Sandbox) -> None:
    entry = service(
        "fails-hidden", f"/usr/bin/tail -f {HOME}/shared/data.txt", None, f'readable_paths = ["{HOME}/shared"]'
    )
    path = f"{HOME}/.config/hivematrix/services.d/failing.toml"
    before = failing("cat", path).out
    others = before[: before.index("[services.fails-hidden]")]
    failing.write(path, others + entry.replace(f"{PLACE}/fails-hidden", f"{PLACE}/hidden"))
    try:
        failing.helmctl("apply")
        failing.helmctl("restart", "fails-hidden")
        printed = failing("journalctl", "--user", "-u", "hivematrix-fails-hidden", "-n", "5", "-o", "cat").out
        assert "data" in printed.splitlines()
    finally:
        failing.helmctl("stop", "fails-hidden", check=False)
        failing.write(path, before)
        failing.helmctl("apply", check=False)


@pytest.mark.parametrize("place", ["~/", "~/.ssh", "~/.config/hivematrix/secrets", "/run/user/1000"])
def test_readable_paths_that_would_show_secrets_are_refused(demo: Sandbox, place: str) -> None:
    demo.shell(f"mkdir -p ~/.ssh {PLACE}/greedy")
    path = f"{HOME}/.config/hivematrix/services.d/greedy.toml"
    demo.write(path, service("greedy", "/usr/bin/sleep 1000", None, f'readable_paths = ["{place}"]'))
    try:
        refused = demo.helmctl("apply", "greedy", check=False)
        assert refused.code != 0 and "may not be shown to a service" in refused.err, refused.text
        assert "readable_paths" in refused.err
    finally:
        demo.shell(f"rm -r {path} {PLACE}/greedy")
