"""A sandbox whose suite belongs to the system account that ``helmctl setup --account`` makes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.booted import RELEASE, TOP, Done, Sandbox, run

ACCOUNT = "hivematrix"
HOME = Path("/var/lib/hivematrix")


@dataclass
class Machine(Sandbox):
    """A sandbox whose suite belongs to the dedicated account; root's helmctl acts for it."""

    said: dict[str, str] = field(default_factory=dict)
    """What each stage printed."""

    def root(self, command: str, check: bool = True, timeout: float = 300) -> Done:
        return self.shell(command, root=True, check=check, timeout=timeout)

    def account(self, *words: str) -> str:
        """What a command prints that runs as the account on its user bus."""
        done = self.script("exec", "--user", ACCOUNT, "--", *words)
        assert done.code == 0, f"{words}: exit code {done.code}\n{done.text}"
        return done.out.strip()

    def set_up(self, suite: str, registry: str = "/root/services.toml") -> str:
        """Set up the account, its sample programs in /opt/suite, and SUITE as its registry, by default in a file that
        root alone can read; what set-up printed.
        """
        self.write(registry, suite, root=True)
        # The account is made first, so that it can own its programs.
        self.root(f"helmctl setup --account {ACCOUNT}")
        self.root(f"/root/sample/install /opt/suite faulty codex && chown -R {ACCOUNT}: /opt/suite")
        return self.root(f"helmctl setup --account {ACCOUNT} --registry {registry}").text

    def systemctl(self, *words: str) -> str:
        return self.account("systemctl", "--user", *words)

    def apt(self, words: str) -> str:
        """What an unattended apt-get and the package's scripts say."""
        return self.root(f"DEBIAN_FRONTEND=noninteractive apt-get --yes --no-install-recommends {words}").text

    def sql(self, query: str) -> str:
        socket = f"/run/user/{self.uid}/hivematrix/postgres-helm"
        return self.account("psql", "-h", socket, "-U", "helm", "-d", "helm", "-Atqc", query)

    @property
    def uid(self) -> int:
        return int(self.root(f"id -u {ACCOUNT}").out)

    def suite(self) -> dict[str, str]:
        """``helmctl status`` as root: state by service."""
        shown = json.loads(self.root("helmctl status --json", check=False).out)
        return {entry["service_name"]: entry["state"] for entry in shown}

    def pids(self, *units: str) -> dict[str, int]:
        return {unit: int(self.systemctl("show", "-P", "MainPID", unit)) for unit in units}

    def running(self) -> set[str]:
        """Units of Helm's and the suite's that do something, or have failed."""
        states = "--state=active,activating,reloading,deactivating,failed"
        shown = self.systemctl("list-units", "--plain", "--no-legend", states, "hivematrix*", "helmd*")
        return {line.split()[0] for line in shown.splitlines()}

    def there(self, *paths: str) -> set[str]:
        """Those of PATHS that exist."""
        return {path for path in paths if self.root(f"test -e '{path}'", check=False).code == 0}

    def first_line_stored(self) -> bool:
        """Whether the store has what the printer said when it was started for the first time."""
        return self.sql("SELECT min(id) FROM log_entries WHERE message = 'line 1'") == self.said["first line"]


def build(source: Path = TOP) -> Path:
    """The package built from a checkout, in its ``dist/``."""
    words = [str(source / "scripts/build-deb")]
    done = run(words, timeout=600)
    done.check(words)
    return Path(done.out.splitlines()[-1])


@contextmanager
def booted_machine(name: str, files: Mapping[Path, str], release: tuple[str, ...] = RELEASE) -> Iterator[Machine]:
    """A new sandbox with FILES, by where root finds them, and the sample programs in /root/sample."""
    box = Machine(name)
    box.script("down")
    try:
        up = box.script("up", *release, timeout=600)
        assert up.code == 0, up.text
        for source, place in {**files, TOP / "tests/suite": "/root/sample"}.items():
            box.script("copy", "--root", str(source), place)
        yield box
    finally:
        down = box.script("down")
    assert down.code == 0, down.text


def printing_suite(count: int, rate: int) -> str:
    """A registry with services that print: COUNT lines and then none, and RATE lines a second; and with codex."""
    return f"""\
[services.printer]
type = "command"
path = "/opt/suite/faulty"
start_command = ["/usr/bin/python3", "printer.py"]
environment = {{ HOLD = "1", COUNT = "{count}", RATE = "20000" }}

[services.ticker]
type = "command"
path = "/opt/suite/faulty"
start_command = ["/usr/bin/python3", "printer.py"]
environment = {{ COUNT = "0", RATE = "{rate}" }}

[services.codex]
path = "/opt/suite/codex"
depends_on = []
"""
