"""Finding and ending the processes of a manual installation of this account."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from helmd.health.control_group import control_group_of
from helmd.health.listeners import Holder, holders_of
from helmd.model.identity.group_unit import unit_of_group
from helmd.model.modules.adoption import ProcessFacts, process_owner

END_SECONDS = 30.0
"""Seconds between SIGTERM and SIGKILL, in which Keycloak closes its database."""
_MAX_LINE = 65_536


@dataclass(frozen=True, slots=True)
class FoundProcess:
    """A process and its owner: a service, or the older Helm. ``system`` says that its unit is of the system manager."""

    owner: str
    facts: ProcessFacts
    system: bool = False


@dataclass(frozen=True, slots=True)
class FoundProcesses:
    """The processes of an installation, and foreign ones that occupy its ports."""

    own: tuple[FoundProcess, ...]
    foreign: Mapping[str, Holder]
    """The process that listens on the port of each service."""


def find_processes(
    places: Mapping[str, Path], ports: Mapping[str, int], of_helm: Callable[[str], bool]
) -> FoundProcesses:
    """Return the processes of this account that belong to PLACES (by name), and others that listen on PORTS.

    OF_HELM says which units are Helm's own; their processes are ignored.
    """
    wanted = {name: str(place) for name, place in places.items()}
    holders = {name: holders_of(port) for name, port in ports.items()}
    listening: dict[int, set[int]] = {}
    for name, found in holders.items():
        for holder in found:
            listening.setdefault(holder.pid, set()).add(ports[name])
    ancestors = set(_ancestors())
    own: list[FoundProcess] = []
    for facts, system in _own_processes():
        facts = replace(facts, ports=frozenset(listening.get(facts.pid, ())))
        if facts.pid in ancestors or of_helm(facts.unit):
            continue
        if owner := process_owner(facts, wanted, ports):
            own.append(FoundProcess(owner, facts, system))
    known = {each.facts.pid for each in own}
    foreign = {
        name: holder
        for name, found in holders.items()
        for holder in found
        if holder.pid not in known and not of_helm(holder.unit)
    }
    return FoundProcesses(tuple(own), foreign)


def _own_processes() -> Iterator[tuple[ProcessFacts, bool]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := process_facts(int(entry))) is not None:
            group = unit_of_group(control_group_of(entry) or "")
            yield found, group is not None and group.manager is None and group.unit.endswith(".service")


def process_facts(pid: int) -> ProcessFacts | None:
    """Return the facts of a process of this account, or None for another's, or one that has ended."""
    place = f"/proc/{pid}"
    try:
        if os.stat(place).st_uid != os.geteuid():
            return None
        with open(f"{place}/cmdline", "rb") as file:
            words = tuple(word.decode("utf-8", "surrogateescape") for word in file.read(_MAX_LINE).split(b"\0") if word)
        group = unit_of_group(control_group_of(pid) or "")
        return ProcessFacts(pid, _started(pid), os.readlink(f"{place}/cwd"), words, unit=group.unit if group else "")
    except OSError:
        return None


def _started(pid: int) -> int:
    """Return when a process started, in clock ticks after the boot. Raises OSError."""
    with open(f"/proc/{pid}/stat") as file:
        # The name, in parentheses, may have any character.
        return int(file.read().rpartition(")")[2].split()[19])


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 1:
        yield pid
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            return


def end_processes(processes: Sequence[ProcessFacts], seconds: float = END_SECONDS) -> list[ProcessFacts]:
    """End PROCESSES by SIGTERM, and by SIGKILL what is left after SECONDS; return those that had to be killed.

    Signals are sent by pidfd (pidfd_open(2)), so that a reused pid is not signalled.
    """
    open_ones: dict[int, ProcessFacts] = {}
    for facts in processes:
        with suppress(OSError):
            descriptor = os.pidfd_open(facts.pid)
            now = process_facts(facts.pid)
            if now is None or now.started != facts.started:
                os.close(descriptor)
                continue
            open_ones[descriptor] = facts
    try:
        for number, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
            killed = list(open_ones.values()) if number == signal.SIGKILL else []
            for descriptor in open_ones:
                with suppress(OSError):
                    signal.pidfd_send_signal(descriptor, number)
            _wait(open_ones, wait)
            if not open_ones:
                return killed
        return killed
    finally:
        for descriptor in open_ones:
            os.close(descriptor)


def _wait(open_ones: dict[int, ProcessFacts], seconds: float) -> None:
    """Wait until the processes have ended, for SECONDS at most; remove those that have."""
    poller = select.poll()
    for descriptor in open_ones:
        poller.register(descriptor, select.POLLIN)
    until = time.monotonic() + seconds
    while open_ones and (left := until - time.monotonic()) > 0:
        for descriptor, _ in poller.poll(left * 1000):
            poller.unregister(descriptor)
            open_ones.pop(descriptor, None)
            os.close(descriptor)
