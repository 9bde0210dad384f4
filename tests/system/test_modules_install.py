"""Modules from git repositories, good and hostile ones, installed beside the demo's suite."""

import json
import re
from collections.abc import Iterator
from functools import partial

import pytest

from tests.system.booted import Sandbox, until

GIT = "/home/hive/git"
MODULES = "/home/hive/.local/share/hivematrix/modules"
NAMES = ("good", "link", "state", "venv", "other", "path", "off", "local", "syntax", "programs", "large", "broken")
OWNED = "/home/hive/owned"
SETTINGS = "/home/hive/.config/hivematrix/helm.toml"

RUN = """
import http.server, os, pathlib

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.path.isdir("instance") else 500)
        self.end_headers()
        self.wfile.write(pathlib.Path("instance/count").read_bytes())

pathlib.Path("instance/count").write_text("1")
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

BACKEND = """
import json, os, socket, zipfile

def tried(what):
    try:
        return repr(what())
    except OSError as problem:
        return problem.strerror

def connect(path):
    with socket.socket(socket.AF_UNIX) as it:
        it.connect(path)
    return "connected"

def build_wheel(directory, config_settings=None, metadata_directory=None):
    home, uid = "/home/hive", os.getuid()
    report = {
        "home": tried(lambda: sorted(os.listdir(home))),
        "secrets": tried(lambda: os.listdir(f"{home}/.config/hivematrix/secrets")),
        "suite": tried(lambda: os.listdir(f"{home}/suite/core")),
        "modules": tried(lambda: sorted(os.listdir(f"{home}/.local/share/hivematrix/modules"))),
        "write": tried(lambda: open(f"{home}/owned", "w")),
        "mirror": tried(lambda: open(f"{home}/.local/share/hivematrix/modules/good/mirror.git/config", "a")),
        "helm": tried(lambda: connect(f"/run/user/{uid}/hivematrix/helm.sock")),
        "bus": tried(lambda: connect(f"/run/user/{uid}/bus")),
        "postgres": tried(lambda: os.listdir(f"/run/user/{uid}/hivematrix/postgres-suite")),
        "journal": tried(lambda: os.listdir("/var/log/journal")),
        "environment": sorted(os.environ),
    }
    name = "innocent-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("innocent_report.json", json.dumps(report))
        wheel.writestr("innocent-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: innocent\\nVersion: 1.0\\n")
        tags = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("innocent-1.0.dist-info/WHEEL", tags)
        wheel.writestr("innocent-1.0.dist-info/RECORD", "innocent_report.json,,\\n")
    return name
"""

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "innocent"
version = "1.0"
"""

SERVICE = """
[service]
port = {port}
health.start_timeout = "5s"
health.path = "/"
"""


@pytest.fixture(scope="module")
def machine(demo: Sandbox) -> Iterator[Sandbox]:
    """The demo with git and pip, as the package recommends; without the modules of these tests afterwards."""
    packages = "git python3-venv"
    demo.shell(f"DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {packages}", root=True)
    yield demo
    demo.shell("helmctl stop good; rm -f ~/.config/hivematrix/services.d/good.toml; helmctl apply", check=False)
    names = " ".join(NAMES)
    demo.shell(f"cd {MODULES} && rm -rf {names}; cd ~/.local/state/hivematrix/modules && rm -rf {names}", check=False)
    demo.shell(f"cd {GIT} && rm -rf {names}")


def repository(box: Sandbox, name: str, files: dict[str, str], commands: str = "") -> str:
    """A git repository with FILES, and what COMMANDS do in it, committed; its path."""
    place = f"{GIT}/{name}"
    box.shell(f"mkdir -p {place} && git -C {place} init --quiet --initial-branch=main")
    for path, text in files.items():
        box.shell(f"mkdir -p $(dirname {place}/{path})")
        box.write(f"{place}/{path}", text)
    author = "-c user.name=a -c user.email=a@example.org"
    box.shell(f"cd {place} && {commands or 'true'} && git add --all && git {author} commit --quiet --message=one")
    return place


def install(box: Sandbox, source: str, *words: str) -> tuple[int, str]:
    done = box.helmctl("modules", "install", source, "--allow-file", *words, check=False)
    return done.code, done.text


def test_a_module_is_installed_and_its_packages_see_nothing_of_others(machine: Sandbox) -> None:
    files = {
        "run.py": RUN,
        "hivematrix.toml": SERVICE.format(port=5071),
        "requirements.txt": "--no-index\n./innocent\n",
        "innocent/pyproject.toml": PYPROJECT,
        "innocent/backend.py": BACKEND,
        "instance/first": "from the tree",
    }
    source = repository(machine, "good", files)
    assert install(machine, source, "--dry-run")[0] == 0
    code, said = install(machine, source)
    assert code == 0, said
    assert machine.status("good")["good"]["state"] == "healthy"
    assert "Nothing to do." in install(machine, source)[1]
    version = machine.shell(f"ls -d {MODULES}/good/versions/*/").out.strip()
    assert machine.shell(f"cat {MODULES}/good/shared/instance/first {version}instance/count").out == "from the tree1"
    directory = machine("systemctl", "--user", "show", "-P", "WorkingDirectory", "hivematrix-good").out.strip()
    assert f"{directory}/" == version
    report = json.loads(machine.shell(f"cat {version}pyenv/lib/python3*/site-packages/innocent_report.json").out)
    assert report["home"] == "['.local']"
    assert report["modules"] == "['good']"
    for key in ("secrets", "suite", "helm", "bus", "postgres", "mirror"):
        assert report[key] == "No such file or directory", (key, report)
    assert report["write"] == "Read-only file system"
    assert report["journal"] == "Permission denied"
    assert not [name for name in report["environment"] if "SECRET" in name or "PASSWORD" in name or "DATABASE" in name]
    assert machine.shell(f"ls {OWNED}", check=False).code


def test_hostile_repositories_are_refused_and_run_nothing(machine: Sandbox) -> None:
    touch = f"touch {OWNED}"
    good = {"run.py": RUN, "hivematrix.toml": SERVICE.format(port=5072)}
    hostile = {
        "link": (good, "ln -s ../../core/keys stolen", "leads out of the tree"),
        "state": (good, "ln -s /etc instance", "instance"),
        "venv": ({**good, "pyenv/bin/python": f"#!/bin/sh\n{touch}\n"}, "", "where Helm puts files"),
        "other": ({**good, "hivematrix.toml": "[services.core]\nport = 1\n"}, "", "fault"),
        "path": ({**good, "hivematrix.toml": '[service]\nport = 5072\npath = "~"\n'}, "", "fault"),
        "off": ({**good, "hivematrix.toml": '[service]\nport = 5072\nhardening = "off"\n'}, "", "--trust"),
        "local": ({**good, "requirements.txt": "--no-index\n/home/hive/suite/core\n"}, "", "could not be installed"),
        "syntax": ({**good, "wrong.py": "def\n"}, "", "could not be compiled"),
    }
    for name, (files, commands, why) in hostile.items():
        source = repository(machine, name, files, commands)
        code, said = install(machine, source)
        assert code and why in said, (name, said)
        left = machine.shell(f"ls -d {MODULES}/{name}/versions/*/", check=False).out
        assert not left, (name, left)
    programs = f"git config core.fsmonitor '{touch}' && git config uploadpack.packObjectsHook '{touch}'"
    programs += f" && git config filter.run.smudge '{touch}' && echo '* filter=run' > .gitattributes"
    programs += f" && printf '#!/bin/sh\\n{touch}\\n' > .git/hooks/post-checkout && chmod +x .git/hooks/post-checkout"
    source = repository(machine, "programs", good, f"{programs} && rm -f {OWNED}")
    machine.shell(f"rm -f {OWNED}")
    code, said = install(machine, source, "--dry-run")
    assert code == 0, said
    for source in ("ext::sh -c 'touch x'", "--upload-pack=x/y", "ssh://-oProxyCommand=x/y", f"{GIT}/../git/good"):
        done = machine.helmctl("modules", "install", "--allow-file", "--", source, check=False)
        assert done.code == 2, (source, done.text)
    assert machine.shell(f"ls {OWNED}", check=False).code, "a program of a repository was run"


BOUND = """
import pathlib, sys, threading, time
sys.path.insert(0, "/usr/share/hivematrix-helm")
from helmd.model.layout import layout
from helmd.modules.sandbox import BuildSandbox, run_in

home = pathlib.Path("/home/hive")
where = home / "git"
box = BuildSandbox(layout({}, home, 1000, pathlib.Path("/usr/share/hivematrix-helm")), "good", True, where, (where,),
                   bound_to="helm-bound.service", secrets=("open sesame",), seconds=30)
words = ["/bin/sh", "-c", "echo the word is open sesame; echo begun; sleep 25"]
ran = run_in(box, words, lambda line: print(line, flush=True))
print(ran.result)
"""


def test_what_is_built_ends_with_its_job_and_prints_no_secret(machine: Sandbox) -> None:
    machine.shell(f"mkdir -p {GIT}; systemd-run --user --collect --unit=helm-bound.service sleep 60")
    machine.write("/home/hive/bound.py", BOUND)
    command = "(sleep 3; systemctl --user kill --signal=KILL helm-bound.service) & time -p python3 bound.py"
    done = machine("bash", "-c", command, check=False)
    assert done.out.splitlines()[:2] == ["the word is ********", "begun"], done.text
    assert done.out.splitlines()[2] != "success" and done.seconds < 15, done.text


CANCELLED = """
import pathlib, signal, sys
sys.path.insert(0, "/usr/share/hivematrix-helm")
from helmd.model.layout import layout
from helmd.modules.sandbox import BuildSandbox, run_in

def cancel(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, cancel)
home = pathlib.Path("/home/hive")
where = home / "git"
box = BuildSandbox(layout({}, home, 1000, pathlib.Path("/usr/share/hivematrix-helm")), "good", True, where, (where,),
                   bound_to="helm-cancelled.service", seconds=60)
try:
    print("its program ended:", run_in(box, ["/bin/sleep", "50"], print).why, flush=True)
except KeyboardInterrupt:
    print("cancelled", flush=True)
"""


def test_a_job_that_is_cancelled_says_so_although_its_program_ends_first(machine: Sandbox) -> None:
    """systemd stops what is ordered after a unit, here its program, before that unit."""
    machine.write("/home/hive/cancelled.py", CANCELLED)

    def ended() -> list[str]:
        said = machine.shell("journalctl --user --no-pager -o cat -u helm-cancelled").out.splitlines()
        return [line for line in said if line == "cancelled" or line.startswith("its program ended")]

    def count(expected: int) -> bool:
        return len(ended()) == expected

    running = "systemctl --user list-units --plain --no-legend --state=running 'helm-sandbox-good-*'"
    before = len(ended())
    for times in range(1, 4):
        machine.shell("systemd-run --user --collect --unit=helm-cancelled python3 /home/hive/cancelled.py")
        until(lambda: machine.shell(running).out, 60)
        machine.shell("systemctl --user stop helm-cancelled")
        until(partial(count, before + times), 60)
    assert set(ended()[before:]) == {"cancelled"}


def test_a_repository_that_is_too_large_is_refused(machine: Sandbox) -> None:
    before = machine.shell(f"cat {SETTINGS}").out
    machine.write(SETTINGS, before.replace("[modules]\n", '[modules]\nmax_size = "1M"\n'))
    try:
        source = repository(machine, "large", {"run.py": RUN}, "head -c 3000000 /dev/urandom > noise")
        code, said = install(machine, source)
    finally:
        machine.write(SETTINGS, before)
    assert code and re.search(r"could not be fetched: .*(more than 1 MB|killed|too large|SIGXFSZ|signal)", said), said


def test_a_module_that_does_not_become_healthy_leaves_the_suite_as_it_was(machine: Sandbox) -> None:
    before = machine.shell("helmctl status --json", check=False).out
    names = [each["service_name"] for each in json.loads(before)]
    files = {"run.py": "import sys; sys.exit('it can not work')\n", "hivematrix.toml": SERVICE.format(port=5073)}
    code, said = install(machine, repository(machine, "broken", files))
    assert code and "did not become healthy" in said and "it can not work" in said, said
    assert [each["service_name"] for each in json.loads(machine.shell("helmctl status --json").out)] == names
    record = json.loads(machine.shell(f"cat {MODULES}/broken/module.json").out)
    assert [each["state"] for each in record["versions"]] == ["failed"] and record["active"] == ""
    assert machine("systemctl", "--user", "is-failed", "hivematrix-broken", check=False).code


SERVER = """
import http.server, os, ssl, subprocess, sys, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        path, _, query = self.path.partition("?")
        if path.startswith(("/old/", "/away/")):
            host = "localhost:8444/git" if path.startswith("/old/") else "elsewhere.example"
            self.send_response(301)
            self.send_header("Location", f"https://{host}/{path.split('/', 2)[2]}?{query}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        variables = {"GIT_PROJECT_ROOT": "/home/hive/git", "GIT_HTTP_EXPORT_ALL": "1", "QUERY_STRING": query,
                     "PATH_INFO": path.removeprefix("/git"), "REQUEST_METHOD": self.command,
                     "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                     "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", "")}
        given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = {**os.environ, **variables}
        done = subprocess.run(["git", "http-backend"], input=given, stdout=subprocess.PIPE, env=environment)
        head, _, body = done.stdout.partition(b"\\r\\n\\r\\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\\r\\n"))
        self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
        for name, value in {**fields, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer

server = http.server.ThreadingHTTPServer(("127.0.0.1", 8444), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/home/hive/tls/server.crt", "/home/hive/tls/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
CERTIFICATES = """
set -e
mkdir -p ~/tls && cd ~/tls
exec 2> /dev/null
openssl req -x509 -newkey rsa:2048 -nodes -days 3 -subj /CN=private -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost \\
    -keyout server.key -out server.csr
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -days 2 -copy_extensions copy -out server.crt
"""
TRUSTED = "/usr/local/share/ca-certificates/private.crt"
REPOSITORIES = {"run.py": RUN, "hivematrix.toml": SERVICE.format(port=5074)}


def test_https_needs_a_certificate_that_is_trusted_and_follows_nothing(machine: Sandbox) -> None:
    repository(machine, "shop", REPOSITORIES)
    machine.shell(CERTIFICATES)
    machine.write("/home/hive/server.py", SERVER)
    machine.shell("systemd-run --user --quiet --collect --unit=git-server python3 /home/hive/server.py")
    try:
        until(lambda: not machine.shell("curl -sk https://localhost:8444/git/shop/HEAD", check=False).code, 30)
        code, said = install(machine, "https://localhost:8444/git/shop", "--dry-run")
        assert code and "does not show a certificate that this machine trusts" in said, said
        machine.shell(f"cp /home/hive/tls/ca.crt {TRUSTED} && update-ca-certificates", root=True)
        code, said = install(machine, "https://localhost:8444/git/shop", "--dry-run")
        assert code == 0, said
        for place, target in (("old", "https://localhost:8444/git/shop"), ("away", "https://elsewhere.example/shop")):
            code, said = install(machine, f"https://localhost:8444/{place}/shop", "--dry-run")
            assert code and f"the server leads to {target}, which is not followed" in said, said
    finally:
        machine("systemctl", "--user", "stop", "git-server", check=False)
        machine.shell(f"rm -f {TRUSTED} && update-ca-certificates --fresh", root=True)
        machine.shell(f"rm -rf ~/tls ~/server.py {GIT}/shop {MODULES}/shop")
