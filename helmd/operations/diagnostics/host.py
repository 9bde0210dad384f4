"""Checks of the machine and the account: manager, journal, disk, clock, user namespaces."""

import grp
import json
import os
import subprocess
import time
from pathlib import Path

from systemd import id128

from helmd.journal.lines import newest_line
from helmd.journal.query import hidden_files
from helmd.model.errors import BusError
from helmd.model.units.diagnostics import Finding, bad, judge_space, ok, unknown, warn
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.monitoring.host_state import in_container
from helmd.systemd import user_manager
from helmd.systemd.host import probe_host
from helmd.systemd.log_limit import check_limit
from helmd.systemd.user_manager import JOURNAL_GROUP

_PERSISTENT, _VOLATILE = Path("/var/log/journal"), Path("/run/log/journal")
_AHEAD = 60.0
"""Seconds by which the newest line may be ahead of the clock."""


def lingering(context: DoctorContext) -> list[Finding]:
    if user_manager.lingers(context.account):
        return [ok("enabled: the suite runs without a login and starts at boot")]
    return [
        bad("disabled: the suite stops when your last session ends", f"sudo loginctl enable-linger {context.account}"),
    ]


def manager(context: DoctorContext) -> list[Finding]:
    try:
        version = context.manager.units_like("init.scope")
    except BusError as error:
        return [bad(error.sentence, f"sudo systemctl start {user_manager.unit_name(context.uid)}")]
    return [ok("the systemd user manager answers")] if version else [unknown("the systemd user manager lists no units")]


def journal(context: DoctorContext) -> list[Finding]:
    """Check whether the account's lines can be read, by this process and by helmd-journal."""
    restart = f"sudo systemctl restart {user_manager.unit_name(context.uid)}"
    join = f"sudo usermod -aG {JOURNAL_GROUP} {context.account}; {restart} (this restarts the suite)"
    hidden = hidden_files()
    found = []
    if newest_line(context.uid) is not None:
        notices = [file for file in hidden if file.name == "system.journal"]
        found.append(ok("the lines of this account are readable"))
        if notices:
            found.append(warn("journald's notices about dropped lines are not readable", join))
    elif hidden:
        found.append(bad("the lines of this account are not readable", join))
    else:
        found.append(ok("the journal is readable; it has no lines of this account yet"))
    group = grp.getgrnam(JOURNAL_GROUP).gr_gid
    if group in os.getgrouplist(context.account, os.getgid()):
        pid = int(user_manager.manager_properties(context.uid).get("MainPID") or 0)
        if pid and group not in user_manager.groups_of(pid):
            found.append(
                bad(
                    f"the account is in group {JOURNAL_GROUP}, but its user manager was started before it joined",
                    f"{restart} (this restarts the suite)",
                )
            )
    return found


def storage(context: DoctorContext) -> list[Finding]:
    """Check whether the journal survives a reboot."""
    setting = user_manager.journald_settings().get("Storage", "auto").lower()
    if setting in ("volatile", "none"):
        fix = (
            r"printf '[Journal]\nStorage=persistent\n' | sudo install -D -m 644 /dev/stdin"
            " /etc/systemd/journald.conf.d/90-storage.conf; sudo systemctl restart systemd-journald"
        )
        return [
            warn(f"journald has Storage={setting}: lines that are not in the log store yet are lost at a reboot", fix)
        ]
    if (_PERSISTENT / id128.get_machine().hex).is_dir():
        return [ok("the journal is on disk")]
    fix = f"sudo mkdir -p {_PERSISTENT}; sudo systemd-tmpfiles --create --prefix {_PERSISTENT}; sudo journalctl --flush"
    return [warn("the journal is in memory only: lines that are not in the log store yet are lost at a reboot", fix)]


def rate_limit(context: DoctorContext) -> list[Finding]:
    """Check whether journald may drop lines of the account's services."""
    return [check_limit(context.uid, context.layout.libexec)]


def disk(context: DoctorContext) -> list[Finding]:
    """Free space of each file system with files of the suite."""
    store, journal = context.layout.store_cluster, _PERSISTENT if _PERSISTENT.is_dir() else _VOLATILE
    places = [store, context.layout.state, context.layout.data, journal]
    seen: set[int] = set()
    found = []
    for given in places:
        place = given
        while not place.exists():
            place = place.parent
        device = place.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        space = os.statvfs(place)
        usable = (space.f_blocks - space.f_bfree + space.f_bavail) * space.f_frsize
        least = context.settings.min_free(usable) if given == store else None
        found.append(judge_space(str(place), space.f_bavail * space.f_frsize, usable, least=least))
        if space.f_files:
            files = judge_space(str(place), space.f_favail, space.f_files, "inodes")
            found += [files] if files.verdict != "ok" else []
    return found


def clock(context: DoctorContext) -> list[Finding]:
    newest = newest_line(context.uid)
    if newest is not None and newest > time.time() + _AHEAD:
        hours = (newest - time.time()) / 3600
        return [
            bad(
                f"the clock is behind: the newest line in the journal is {hours:.1f} h in the future",
                "sudo timedatectl set-ntp true",
            )
        ]
    try:
        synchronized = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except subprocess.CalledProcessError:
        return [unknown("timedatectl failed")]
    if in_container():
        return [ok("kept by the host of this container")]
    if synchronized == "yes":
        return [ok("synchronized by a time service")]
    return [
        warn(
            "not synchronized: tokens may be refused, and times of log lines may be wrong",
            "sudo apt install systemd-timesyncd; sudo timedatectl set-ntp true",
        )
    ]


_NAMESPACE_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
)
"""Files by which user namespaces are disabled, the value that does, and the sysctl that enables them."""


def hardening(context: DoctorContext) -> list[Finding]:
    """Check whether services can be sandboxed fully, and whether their units were rendered for that."""
    host = probe_host()
    found = []
    if host.user_namespaces:
        found.append(ok("full: user namespaces are available"))
    else:
        switches = [allow for file, off, allow in _NAMESPACE_SWITCHES if _content(Path(file)) == off]
        fix = "; ".join(f"sudo sysctl -w {switch}" for switch in switches)
        found.append(
            warn(
                "limited: without user namespaces, services can read files of other accounts where modes allow it",
                fix or "No setting of this machine disables them; if this is a container, check its configuration",
            )
        )
    saved = _content(context.layout.state / "host.json")
    if saved:
        known = json.loads(saved)
        if (known.get("systemd"), known.get("user_namespaces")) != (host.systemd, host.user_namespaces):
            fix = "helmctl setup; helmctl diff; helmctl apply"
            found.append(warn("units were rendered for other features of this host", fix))
    return found


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
