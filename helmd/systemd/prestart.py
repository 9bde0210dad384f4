"""The ``ExecStartPre=`` of every service: refuses a taken port and a module between two versions, and puts
``services.json`` into its directory.

Runs as ``/usr/libexec/hivematrix-helm/prestart KEY=VALUE...``. A symlink in the place of
``services.json`` is replaced, never written through; the file is written only when it changed. A directory that the
account may not write to gets none.
"""

import sys

if __name__ == "__main__":
    sys.path.insert(0, __file__.rpartition("/helmd/")[0])

import os
import stat

from helmd.health.port_binding import is_bound

DISCOVERY = "services.json"
DISCOVERY_VARIABLE = "HIVEMATRIX_SERVICES_JSON"
"""The environment variable of every service with the path of the suite's own copy."""

_LONGEST_REASON = 4000
_BOUND_AT = {"localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1", "0.0.0.0": "0.0.0.0", "::": "::"}  # noqa: S104
"""Hosts of URLs whose address is known without a lookup. What looks them up takes three times as long to import as the
interpreter takes to start."""


def place_discovery(source: str, directory: str) -> bool:
    """Copy SOURCE to DIRECTORY/services.json atomically, mode 0644; False when it was already so."""
    with open(source, "rb") as file:
        wanted = file.read()
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _present(folder) == wanted:
            return False
        temporary = f".{DISCOVERY}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(wanted)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, DISCOVERY, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise
    finally:
        os.close(folder)
    return True


def _present(folder: int) -> bytes | None:
    try:
        descriptor = os.open(DISCOVERY, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    if os.fstat(descriptor).st_mode != stat.S_IFREG | 0o644:
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _blocked(file: str) -> str:
    """Return why the service must not start now; empty if it may."""
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read(_LONGEST_REASON).strip() or file
    except FileNotFoundError:
        return ""
    except OSError as problem:
        return f"{file} can't be read: {problem.strerror}"


def _port_holder(host: str, port: int) -> str:
    """Return what keeps the service from listening; empty if nothing does."""
    address = _BOUND_AT.get(host)
    if address is not None and not is_bound(address, port):
        return ""
    from helmd.health.listeners import conflict

    return str(conflict(host, port) or "")


def main(words: list[str]) -> int:
    given = dict(word.split("=", 1) for word in words)
    if "blocked" in given and (reason := _blocked(given["blocked"])):
        print(reason, file=sys.stderr)
        return 1
    if "port" in given and (holder := _port_holder(given.get("host", "localhost"), int(given["port"]))):
        print(f"port {given['port']} is in use by {holder}", file=sys.stderr)
        return 1
    if "discovery" in given:
        try:
            place_discovery(given["discovery"], given["directory"])
        except PermissionError:
            # Such as a directory of root's. The program finds the file by this variable of its environment.
            print(
                f"{given['directory']} has no services.json: this account may not write there; "
                f"{DISCOVERY_VARIABLE} names the file to read instead, {given['discovery']}",
                file=sys.stderr,
            )
        except OSError as problem:
            print(f"can't place services.json in {given['directory']}: {problem}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
