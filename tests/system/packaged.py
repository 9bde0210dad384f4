"""A sandbox whose suite belongs to the system account that ``helmctl setup --account`` makes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.booted import RELEASE, TOP, CommandResult, Sandbox, run

ACCOUNT = "hivematrix"
HOME = Path("/var/lib/hivematrix")


@dataclass
class Machine(Sandbox):
    """A sandbox whose suite belongs to the dedicated account; root's helmctl acts for it."""

    said: dict[str, str] = field(default_factory=dict)
    """The output of each stage."""

    def root(self, command: str, check: bool = True, timeout: float = 300) -> CommandResult:
        """Run a shell command as root."""
        return self.shell(command, root=True, check=check, timeout=timeout)

    def account(self, *words: str) -> str:
        """Return the stdout of a command run as the account with its user bus; fail the test if it fails."""
        done = self.script("exec", "--user", ACCOUNT, "--", *words)
        assert done.code == 0, f"{words}: exit code {done.code}\n{done.text}"
        return done.out.strip()

    def set_up(self, suite: str, registry: str = "/root/services.toml") -> str:
        """Set up the account, sample programs in /opt/suite, and SUITE as its registry; return the output of setup.

        By default only root can read the file REGISTRY.
        """
        self.write(registry, suite, root=True)
        # The account is made first, so that it can own its programs.
        self.root(f"helmctl setup --account {ACCOUNT}")
        self.root(f"/root/sample/install /opt/suite faulty codex && chown -R {ACCOUNT}: /opt/suite")
        return self.root(f"helmctl setup --account {ACCOUNT} --registry {registry}").text

    def systemctl(self, *words: str) -> str:
        return self.account("systemctl", "--user", *words)

    def apt(self, words: str) -> str:
        """Run apt-get without questions; return its output, and that of the package's scripts."""
        return self.root(f"DEBIAN_FRONTEND=noninteractive apt-get --yes --no-install-recommends {words}").text

    def sql(self, query: str) -> str:
        """Return the result of a query of the log store, unaligned and without headers."""
        socket = f"/run/user/{self.uid}/hivematrix/postgres-helm"
        return self.account("psql", "-h", socket, "-U", "helm", "-d", "helm", "-Atqc", query)

    @property
    def uid(self) -> int:
        return int(self.root(f"id -u {ACCOUNT}").out)

    def suite(self) -> dict[str, str]:
        """Return the state by service, by ``helmctl status`` as root."""
        shown = json.loads(self.root("helmctl status --json", check=False).out)
        return {entry["service_name"]: entry["state"] for entry in shown}

    def pids(self, *units: str) -> dict[str, int]:
        """Return the main process ids of UNITS; 0 for one without."""
        return {unit: int(self.systemctl("show", "-P", "MainPID", unit)) for unit in units}

    def running(self) -> set[str]:
        """Return the units of Helm and the suite that are active, starting, stopping or failed."""
        states = "--state=active,activating,reloading,deactivating,failed"
        shown = self.systemctl("list-units", "--plain", "--no-legend", states, "hivematrix*", "helmd*")
        return {line.split()[0] for line in shown.splitlines()}

    def existing(self, *paths: str) -> set[str]:
        """Return those of PATHS that exist."""
        return {path for path in paths if self.root(f"test -e '{path}'", check=False).code == 0}

    def first_line_stored(self) -> bool:
        """Return whether the store still has the first line of the printer's first start, by its id."""
        return self.sql("SELECT min(id) FROM log_entries WHERE message = 'line 1'") == self.said["first line"]


def build(source: Path = TOP) -> Path:
    """Build the package from a checkout; return its path in ``dist/``."""
    words = [str(source / "scripts/build-deb")]
    done = run(words, timeout=600)
    done.check(words)
    return Path(done.out.splitlines()[-1])


@contextmanager
def booted_machine(name: str, files: Mapping[Path, str], release: tuple[str, ...] = RELEASE) -> Iterator[Machine]:
    """Yield a new sandbox with FILES, copied to the paths given, and the sample programs in /root/sample."""
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
    """Return a registry with a service that prints COUNT lines, one that prints RATE lines a second, and codex."""
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
