"""A module from a private repository by ssh with a deploy key, from OpenSSH's server.

Only run by ``scripts/campaign private``, since it takes long.
"""

from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox, until
from tests.system.test_modules_install import GIT, MODULES, REPOSITORIES, install, repository


@pytest.fixture(scope="module")
def machine(demo: Sandbox) -> Iterator[Sandbox]:
    """Yield the demo with git, and OpenSSH's server with its service masked, so that it does not listen for others."""
    demo.shell("systemctl mask --quiet ssh.service ssh.socket; mkdir -p /run/sshd; DEBIAN_FRONTEND=noninteractive "
               "apt-get install --yes --no-install-recommends git python3-venv openssh-server", root=True)  # fmt: skip
    yield demo
    demo.shell("apt-get purge --yes openssh-server; systemctl unmask --quiet ssh.service ssh.socket",
               root=True, check=False)  # fmt: skip


SSHD = """
set -e
mkdir -p ~/sshd && cd ~/sshd && rm -f host_key*
ssh-keygen -q -t ed25519 -N '' -f host_key
printf '%s\\n' 'Port 2222' 'ListenAddress 127.0.0.1' 'HostKey /home/hive/sshd/host_key' 'UsePAM no' 'StrictModes no' \\
    'PidFile none' 'PasswordAuthentication no' 'AuthorizedKeysFile /home/hive/sshd/authorized' > config
systemctl --user stop git-ssh 2> /dev/null || true
systemd-run --user --quiet --collect --unit=git-ssh /usr/sbin/sshd -D -f /home/hive/sshd/config
"""


def test_a_private_repository_is_read_by_a_deploy_key_and_from_one_server_alone(machine: Sandbox) -> None:
    repository(machine, "vault", REPOSITORIES)
    source = "ssh://hive@127.0.0.1:2222/home/hive/git/vault"

    def key(*words: str) -> str:
        return machine.helmctl("modules", "key", *words).out

    def tried() -> tuple[int, str]:
        return install(machine, source, "--dry-run")

    def listening() -> bool:
        return not machine.shell("ssh-keyscan -p 2222 127.0.0.1 2> /dev/null | grep -q ed25519", check=False).code

    try:
        machine.shell(SSHD)
        until(listening, 30)
        code, said = tried()
        assert code and "127.0.0.1 wants a key, and vault has none" in said, said
        first = key("make", "vault")
        machine.write("/home/hive/sshd/authorized", first)
        code, said = tried()
        assert code == 0, said
        assert machine.shell("stat -c %a ~/.config/hivematrix/secrets/deploy-keys/vault.key").out.strip() == "600"
        assert "SHA256:" in machine.helmctl("modules", "key", "show", "vault").err
        # With a new key, the old one is used until the server accepts the new one, and is then removed.
        second = key("make", "vault", "--rotate")
        code, said = tried()
        assert code == 0 and "its new deploy key is not accepted yet" in said, said
        machine.write("/home/hive/sshd/authorized", second)
        code, said = tried()
        assert code == 0 and "the one before is removed" in said, said
        # Another server at its address is refused until its host key is accepted.
        machine.shell(SSHD)
        until(listening, 30)
        code, said = tried()
        assert code and "127.0.0.1 shows another host key than before" in said, said
        key("forget-host", "vault")
        code, said = tried()
        assert code == 0 and "was not known: its ssh-ed25519 key SHA256:" in said, said
    finally:
        machine("systemctl", "--user", "stop", "git-ssh", check=False)
        machine.helmctl("modules", "key", "remove", "vault", check=False)
        machine.shell(f"rm -rf ~/sshd {GIT}/vault {MODULES}/vault")
