"""The host: its tools, and the settings that the sandbox needs for installing packages.

These are name servers, proxies, apt options and credentials, the Debian mirror, and additional certificate authorities.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .host_environment import proxies
from .place import SandboxError

PACKAGES = {  # command -> Debian package
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "mount",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "slirp4netns": "slirp4netns",
    "tar": "tar",
}
BOOT_COMMANDS = ("systemd-nspawn", "mkfs.ext4", "losetup", "mount", "unshare", "nsenter")
BASE_COMMANDS = ("mmdebstrap", "unshare")
NETWORK_COMMANDS = ("slirp4netns", "ip")


def say(sentence: str) -> None:
    """Print progress to stderr; stdout is for the command's output."""
    print(sentence, file=sys.stderr, flush=True)


def environment() -> dict[str, str]:
    """Return a minimal environment for tools of the host."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin", "LC_ALL": "C.UTF-8", **proxies()}


def run(command: list[str], failure: str) -> str:
    """Run a tool of the host and return its output. Raises SandboxError with its last lines if it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environment()
    )
    if done.returncode != 0:
        output = (done.stderr.strip() or done.stdout.strip()).splitlines()[-8:]
        raise SandboxError(f"{failure} ({command[0]}, exit {done.returncode})", "\n".join(output))
    return done.stdout


def require_commands(commands: tuple[str, ...]) -> None:
    """Install missing commands with apt-get. Raises SandboxError if that is not possible."""
    path = environment()["PATH"]
    missing = [command for command in commands if shutil.which(command, path=path) is None]
    if not missing:
        return
    packages = sorted({PACKAGES[command] for command in missing})
    if shutil.which("apt-get", path=path) is None:
        raise SandboxError(
            f"missing on this machine: {', '.join(missing)}",
            f"install these (names of Debian packages): {' '.join(packages)}",
        )
    say(f"Installing on this machine: {' '.join(packages)}")
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    waiting = os.environ.get("APT_CONFIG", str(Path(__file__).parent.parent / "apt.conf"))
    settings = {**environment(), "DEBIAN_FRONTEND": "noninteractive", "APT_CONFIG": waiting}
    for command in (install, ["apt-get", "update", "-qq"], install):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=settings,
        )
        if command is install and done.returncode == 0:
            return
    raise SandboxError(
        f"could not install {' '.join(packages)}: {done.stderr.strip()}",
        f"install it yourself, then try again: apt-get install {' '.join(packages)}",
    )


def release() -> dict[str, str]:
    """Return the host's os-release(5)."""
    try:
        text = Path("/etc/os-release").read_text()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, _, value in pairs}


def debian_sources(release_name: str) -> list[str]:
    """Return sources.list(5) lines of a Debian release, of the host's mirror; empty if the host runs no Debian release.

    A mirror has all supported releases below the same address.
    """
    facts = release()
    own = facts.get("VERSION_CODENAME", "")
    if facts.get("ID") != "debian" or not own:
        return []
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN) $(CREATED_BY)"
    lines = run(["apt-get", "indextargets", "--format", form], "could not read the host's apt sources")
    pockets = {f"{own}{pocket}": f"{release_name}{pocket}" for pocket in ("", "-updates", "-security")}
    found: dict[str, None] = {}
    for line in lines.splitlines():
        uri, suite, component, origin, made_by = (line.split(" ") + [""] * 5)[:5]
        # Without a downloaded Release file, apt does not replace the placeholder.
        debian = origin == "Debian" or (
            origin == "$(ORIGIN)" and uri.rstrip("/").endswith(("/debian", "/debian-security"))
        )
        wanted = suite in pockets and component == "main" and made_by == "Packages"
        if debian and wanted and uri.startswith(("http://", "https://")):
            found[f"deb {uri} {pockets[suite]} main"] = None
    return list(found) if release_name in {line.split()[2] for line in found} else []


def apt_options() -> str:
    """Return the host's Acquire:: settings as an apt.conf(5) fragment."""
    if shutil.which("apt-config", path=environment()["PATH"]) is None:
        return ""
    dump = run(["apt-config", "dump"], "could not read the host's apt configuration")
    kept = [
        line
        for line in dump.splitlines()
        if line.startswith("Acquire::")
        and not line.startswith(
            ("Acquire::IndexTargets", "Acquire::Changelogs", "Acquire::CompressionTypes", "Acquire::cdrom")
        )
    ]
    return "".join(f"{line}\n" for line in kept if not line.endswith(' "";'))


def apt_credentials() -> list[Path]:
    """Return the host's apt_auth.conf(5) files."""
    directory = Path("/etc/apt/auth.conf.d")
    found = [path for path in [Path("/etc/apt/auth.conf")] if path.is_file()]
    return found + (sorted(directory.glob("*.conf")) if directory.is_dir() else [])


def certificates(bundle: Path) -> set[str]:
    """Return the PEM certificates in a bundle."""
    if not bundle.is_file():
        return set()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    parts = bundle.read_text(errors="replace").split(begin)[1:]
    return {begin + part.split(end)[0] + end + "\n" for part in parts}


def host_bundle() -> Path:
    """Return the path of the host's CA bundle (Debian's, else Fedora's)."""
    paths = [Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt")]
    return next((path for path in paths if path.is_file()), paths[0])


def resolv_conf() -> str:
    path = Path("/etc/resolv.conf")
    return path.read_text() if path.is_file() else ""
