"""The ``ExecStartPre=`` of Keycloak: builds it when what goes into a build has changed, which takes some 10 s.

Runs as ``python3 -I -S prepare.py HOME JAVA`` with the unit's environment, and needs only the standard library. One
build serves both modes: 26.4.0 starts from it as ``start-dev`` and as ``start --optimized``. Writes below HOME/data and
HOME/lib/quarkus alone. A build that was cut off is begun anew from the jars that came with the distribution.
"""

import hashlib
import os
import sys

STAMP = "helm-build"
SHIPPED = "quarkus.shipped"

_BUILD = ("build", "--db=postgres")

# A build runs once and ends: compiling it half as well takes 40 % off its time, and half of its work for the processor.
_QUICK = {"JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1"}

# Options that are read when the server starts, with those that hold secrets: they don't go into a build.
_RUN_TIME = (
    "KC_BOOTSTRAP",
    "KC_CACHE",
    "KC_DB_PASSWORD",
    "KC_DB_POOL",
    "KC_DB_URL",
    "KC_DB_USERNAME",
    "KC_HOSTNAME",
    "KC_HTTP_ENABLED",
    "KC_HTTP_HOST",
    "KC_HTTP_PORT",
    "KC_LOG",
    "KC_PROXY",
)


def build_environment(environment: dict[str, str]) -> dict[str, str]:
    """What of the unit's environment a build sees."""
    return {name: value for name, value in environment.items() if not name.startswith(_RUN_TIME)}


def fingerprint(home: str, environment: dict[str, str]) -> str:
    """One line that changes when a new build is needed: version, options, configuration file or providers."""
    digest = hashlib.sha256("\0".join(_BUILD).encode())
    for name in ("version.txt", "conf/keycloak.conf"):
        digest.update(b"\0file\0" + _content(os.path.join(home, name)))
    for name, value in sorted(build_environment(environment).items()):
        if name.startswith("KC_"):
            digest.update(os.fsencode(f"\0{name}\0{value}"))
    providers = os.path.join(home, "providers")
    for name in sorted(os.listdir(providers) if os.path.isdir(providers) else ()):
        if name.endswith((".jar", ".properties")):
            facts = os.stat(os.path.join(providers, name))
            digest.update(os.fsencode(f"\0{name}\0{facts.st_size}\0{facts.st_mtime_ns}"))
    return digest.hexdigest()


def prepare(home: str, java: str, environment: dict[str, str]) -> int:
    """Builds when needed; the exit code, which is that of the build."""
    stamp = os.path.join(home, "data", STAMP)
    wanted = fingerprint(home, environment)
    if _content(stamp).decode("ascii", "replace") == wanted:
        return 0
    print(
        "Keycloak's build options are new or have changed: building it, which takes some 10 seconds.",
        flush=True,
    )
    os.makedirs(os.path.dirname(stamp), exist_ok=True)
    if os.path.exists(stamp):
        os.unlink(stamp)
    _begin_from_shipped(home)
    import subprocess

    kept = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        **build_environment(environment),
        "JAVA": java,
        **_QUICK,
    }
    built = subprocess.run([os.path.join(home, "bin/kc.sh"), *_BUILD], env=kept, check=False).returncode
    if built != 0:
        print(f"Keycloak's build failed with exit code {built}; the next start tries again.", flush=True)
        return 1
    os.sync()
    with open(f"{stamp}.new", "w", encoding="ascii") as file:
        file.write(wanted)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{stamp}.new", stamp)
    return 0


def _begin_from_shipped(home: str) -> None:
    """Puts the distribution's own jars into lib/quarkus, which may be a mount point and so can't be replaced itself."""
    import shutil

    place = os.path.join(home, "lib/quarkus")
    shipped = os.path.join(home, "data", SHIPPED)
    if not os.path.isdir(shipped):
        shutil.rmtree(f"{shipped}.new", ignore_errors=True)
        shutil.copytree(place, f"{shipped}.new")
        os.sync()
        os.rename(f"{shipped}.new", shipped)
        return
    for name in os.listdir(place):
        os.unlink(os.path.join(place, name))
    shutil.copytree(shipped, place, dirs_exist_ok=True)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def main(words: list[str]) -> int:
    """WORDS are Keycloak's directory and the Java program; the exit status is returned."""
    home, java = words
    return prepare(home, java, dict(os.environ))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
