"""What ``helmctl doctor`` finds: a verdict, a sentence, the command that mends it; and the judgements that are pure."""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["ok", "warn", "bad", "unknown"]

ENOUGH_LINES = 100_000
"""Lines a second that journald was seen to take at most; a limit above that limits nothing."""
_DROP_IN = "/etc/systemd/system/user@.service.d/50-hivematrix-helm.conf"


class Finding(NamedTuple):
    """One thing looked at. The sentence has no full stop; ``mend`` is a command, or what to do in words."""

    verdict: Severity
    sentence: str
    fix: str = ""


def ok(sentence: str) -> Finding:
    return Finding("ok", sentence)


def warn(sentence: str, fix: str) -> Finding:
    """Works, but not as it should or not for long."""
    return Finding("warn", sentence, fix)


def bad(sentence: str, fix: str) -> Finding:
    """Something does not work because of it."""
    return Finding("bad", sentence, fix)


def unknown(reason: str) -> Finding:
    return Finding("unknown", f"could not be checked: {reason}")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most BURST lines in SECONDS; none of both means no limit."""

    seconds: float
    burst: int

    @property
    def ample(self) -> bool:
        return not self.seconds or not self.burst or self.burst / self.seconds >= ENOUGH_LINES


def judge_rate_limit(
    journald: RateLimit, configured: RateLimit | None, effective: RateLimit | None, drop_in: bool, uid: int
) -> Finding:
    """Whether one noisy service can silence the others: journald counts the lines of a whole account together.

    JOURNALD is the machine's limit, CONFIGURED what user@UID.service is loaded with, EFFECTIVE what journald was told
    when that was started; None where there is none. DROP_IN says whether a file that sets it is there.
    """
    restart = f"sudo systemctl restart user@{uid}.service (this restarts the suite)"
    limit = effective or journald
    if limit.ample:
        return ok("journald takes as many lines as this account's services can print")
    sentence = f"journald drops what this account's services print beyond {limit.burst:,} lines in {limit.seconds:g} s"
    if configured is not None and configured.ample:
        return warn(f"{sentence}: the user manager was started before the drop-in that lifts this", restart)
    if drop_in:
        return warn(
            f"{sentence}: systemd has not read the drop-in that lifts this", f"sudo systemctl daemon-reload; {restart}"
        )
    write = r"printf '[Service]\nLogRateLimitIntervalSec=1s\nLogRateLimitBurst=10000000\n'"
    return warn(
        sentence, f"{write} | sudo install -D -m 644 /dev/stdin {_DROP_IN}; sudo systemctl daemon-reload; {restart}"
    )


def judge_space(place: str, free: int, total: int, what: str = "disk space") -> Finding:
    """Whether FREE of TOTAL is enough: helmd-journal pauses below 10 %."""
    share = 100 * free / total if total else 100.0
    sentence = f"{place}: {share:.0f} % of its {what} is free"
    fix = f"See what takes it: du -xh {place} | sort -h | tail; of the journal: sudo journalctl --vacuum-size=1G"
    if share < 2:
        return bad(sentence, fix)
    return warn(f"{sentence}; below 10 % no more logs are stored", fix) if share < 10 else ok(sentence)


_JAVA = re.compile(r'version "(?:1\.)?(\d+)')


def java_major(output: str) -> int | None:
    """The major version in what ``java -version`` says; ``1.8.0`` is 8."""
    found = _JAVA.search(output)
    return int(found.group(1)) if found else None


def judge_java(output: str | None, needed: int) -> Finding:
    """TOLD is the output of ``java -version``, None when there is no Java."""
    fix = "sudo apt install openjdk-17-jre-headless"
    if output is None:
        return bad("Java, which Keycloak needs, is not installed", fix)
    major = java_major(output)
    if major is None:
        return unknown("Java doesn't say its version")
    if major < needed:
        return bad(f"Java {major} is too old for Keycloak, which needs {needed}", fix)
    return ok(f"Java {major}")
