"""Findings of ``helmctl doctor``, and the checks among them that need no I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

Severity = Literal["ok", "warn", "bad", "unknown"]

ENOUGH_LINES = 100_000
"""Lines per second; journald's measured maximum, so a higher limit has no effect."""


class Finding(NamedTuple):
    """The result of one check. ``sentence`` has no full stop; ``fix`` is a command or an instruction."""

    verdict: Severity
    sentence: str
    fix: str = ""


def ok(sentence: str) -> Finding:
    return Finding("ok", sentence)


def warn(sentence: str, fix: str) -> Finding:
    """Return a finding that needs attention although everything works at present."""
    return Finding("warn", sentence, fix)


def bad(sentence: str, fix: str) -> Finding:
    """Return a finding because of which something does not work."""
    return Finding("bad", sentence, fix)


def unknown(reason: str) -> Finding:
    return Finding("unknown", f"could not be checked: {reason}")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``burst`` lines per ``seconds``; 0 in either means no limit."""

    seconds: float
    burst: int

    @property
    def ineffective(self) -> bool:
        """Whether the limit is higher than what journald can process."""
        return not self.seconds or not self.burst or self.burst / self.seconds >= ENOUGH_LINES


def judge_rate_limit(
    journald: RateLimit,
    configured: RateLimit | None,
    effective: RateLimit | None,
    drop_in: bool,
    uid: int,
    write: str,
) -> Finding:
    """Check whether one noisy service can make journald drop lines of others: it counts per account, not per service.

    JOURNALD is the limit in journald.conf, CONFIGURED that of the loaded user@UID.service, EFFECTIVE the one journald
    received when that was started; None if unset. DROP_IN says whether a drop-in that sets it exists; WRITE is the
    command that writes one.
    """
    restart = f"sudo systemctl restart user@{uid}.service (this restarts the suite)"
    limit = effective or journald
    if limit.ineffective:
        return ok("journald does not limit the lines of this account's services")
    sentence = f"journald drops lines of this account's services above {limit.burst:,} in {limit.seconds:g} s"
    if configured is not None and configured.ineffective:
        return warn(f"{sentence}: the user manager was started before the drop-in that raises the limit", restart)
    if drop_in:
        return warn(
            f"{sentence}: systemd has not loaded the drop-in that raises the limit",
            f"sudo systemctl daemon-reload; {restart}",
        )
    return warn(sentence, f"{write}; {restart}")


def judge_space(path: str, free: int, total: int, what: str = "disk space", least: int | None = None) -> Finding:
    """Check whether FREE of TOTAL (same unit) is enough; below LEAST helmd-journal pauses (None: it does not)."""
    percent = 100 * free / total if total else 100.0
    sentence = f"{path}: {percent:.0f} % of its {what} is free"
    fix = f"Find large directories: du -xh {path} | sort -h | tail; or: sudo journalctl --vacuum-size=1G"
    if least is not None and free < least:
        return bad(
            f"{sentence}; no logs are stored until more is free (logs.min_free_percent, logs.min_free_size)", fix
        )
    if percent < 2:
        return bad(sentence, fix)
    return warn(sentence, fix) if percent < 10 and least is None else ok(sentence)


EXPIRY_WARNING = timedelta(days=14)


def judge_certificate(service: str, valid_from: datetime, valid_until: datetime, now: datetime) -> Finding:
    """Check the time in which the certificate of SERVICE is valid."""
    renew = "Replace it (one that Helm made for nexus: helmctl setup; see --certificate there for another), then: "
    renew += f"helmctl restart {service}"
    if now < valid_from:
        begins = f"{valid_from:%Y-%m-%d %H:%M} UTC"
        return bad(
            f"the certificate of {service} is not valid before {begins}", f"Check the clock: timedatectl; {renew}"
        )
    if now >= valid_until:
        return bad(f"the certificate of {service} expired on {valid_until:%Y-%m-%d}", renew)
    sentence = f"the certificate of {service} is valid until {valid_until:%Y-%m-%d}"
    return warn(sentence, renew) if valid_until - now < EXPIRY_WARNING else ok(sentence)


def judge_database_use(service: str, sessions: int, tables: bool, files: Sequence[str]) -> Finding | None:
    """Check whether a running service uses its database in PostgreSQL: by its open SESSIONS, by whether the database
    has TABLES, and by SQLite FILES in its directory. None if nothing speaks against it.
    """
    if sessions or (tables and not files):
        return None
    beside = f", and its directory has the SQLite database {files[0]}" if files else ""
    state = "has no session in it" if tables else "has no session in it, and it is empty"
    return warn(
        f"{service} runs, but does not seem to use its PostgreSQL database: it {state}{beside}",
        "Give it the URI where it reads it: database_variable or database_config in services.toml(5); if it needs"
        " none: database = false",
    )


_JAVA = re.compile(r'version "(?:1\.)?(\d+)')


def java_major(output: str) -> int | None:
    """Return the major version in the output of ``java -version``, or None; ``1.8.0`` is 8."""
    found = _JAVA.search(output)
    return int(found.group(1)) if found else None


def judge_java(output: str | None, needed: int) -> Finding:
    """Check the Java version. OUTPUT is that of ``java -version``, None if Java is not installed."""
    fix = "sudo apt install default-jre-headless"
    if output is None:
        return bad("Java, which Keycloak needs, is not installed", fix)
    major = java_major(output)
    if major is None:
        return unknown("no version in the output of java -version")
    if major < needed:
        return bad(f"Java {major} is too old for Keycloak, which needs {needed}", fix)
    return ok(f"Java {major}")


@dataclass(frozen=True, slots=True)
class VirtualEnvironment:
    """The virtual environment of a python service. Versions are of Python, such as ``3.13``."""

    service: str
    directory: str
    made_for: str
    interpreter: str | None
    """The version of its interpreter now; None if that is missing or its version can't be known by its name."""
    gone: bool
    """Whether its interpreter does not exist any more."""
    packages: bool
    """Whether packages are installed in it, which only an interpreter of the version ``made_for`` finds."""

    def broken(self, interpreter: str | None) -> bool:
        """Return whether the service can't run in it with that version."""
        return interpreter is not None and self.packages and interpreter != self.made_for


def judge_environments(environments: Sequence[VirtualEnvironment], following: str | None) -> list[Finding]:
    """Check each service's virtual environment. FOLLOWING is the Python that the next upgrade installs, if another."""
    found = []
    for each in environments:
        made = f"the virtual environment of {each.service} in {each.directory} was made for Python {each.made_for}"
        if each.gone:
            found.append(bad(f"{made}, whose interpreter is not installed any more", _rebuild(each)))
        elif each.broken(each.interpreter):
            lost = f"{each.interpreter} does not find the packages in it: {each.service} can't be started again"
            found.append(bad(f"{made}, and Python {lost}", _rebuild(each)))
        elif each.broken(following):
            found.append(
                warn(
                    f"{made}; the next upgrade of the distribution installs Python {following}, which does not find the"
                    " packages in it",
                    f"After that upgrade: {_rebuild(each)}",
                )
            )
    return found or [ok("of the Python that services run on")]


def _rebuild(environment: VirtualEnvironment) -> str:
    directory = environment.directory
    return (
        f"/usr/bin/python3 -m venv --clear {directory}; {directory}/bin/pip install -r requirements.txt, in the"
        f" service's directory; helmctl restart {environment.service}"
    )
