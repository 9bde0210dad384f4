"""A sandbox whose suite belongs to the system account that ``helmctl setup --account`` makes."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.booted import Done, Sandbox

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
