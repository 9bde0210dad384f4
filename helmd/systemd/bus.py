"""The account's systemd manager over D-Bus (org.freedesktop.systemd1(5)): calls, properties, signals.

Calls block and hold the interpreter's lock, so they are few and short, and bounded by ``SYSTEMD_BUS_TIMEOUT``. Signals
have a connection of their own: those that arrive during a call on the same connection are not announced by its
file descriptor.
"""

import os
import select
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from helmd.model.errors import BusError
from helmd.model.units.unit_state import CommandExit, UnitFacts
from helmd.systemd.dbuslib import DBus, DBusBaseError, apply_signature, path_encode

DESTINATION = b"org.freedesktop.systemd1"
MANAGER = b"/org/freedesktop/systemd1"
UNITS = b"/org/freedesktop/systemd1/unit"
UNIT_INTERFACE = b"org.freedesktop.systemd1.Unit"
SERVICE_INTERFACE = b"org.freedesktop.systemd1.Service"
MANAGER_INTERFACE = b"org.freedesktop.systemd1.Manager"
PROPERTIES = b"org.freedesktop.DBus.Properties"
NO_MEMORY_FIGURE = (1 << 64) - 1
NEVER = (1 << 64) - 1
"""systemd's USEC_INFINITY: no such time."""

Result = TypeVar("Result")


class UnitProperty(NamedTuple):
    """A property of a transient unit: its name, the D-Bus type of its value, and the value with text as str."""

    name: str
    signature: str
    value: Any


def _start_manager() -> str:
    """Return the hint for when the account's user manager can't be reached."""
    # Imported here: only failures need them.
    from helmd.files.account_names import name_of_uid
    from helmd.systemd.user_manager import lingers, unit_name

    uid = os.getuid()
    account = name_of_uid(uid)
    unit = unit_name(uid)
    hint = f"Is its user manager running? See: systemctl status {unit}; to start it: sudo systemctl start {unit}"
    return hint if lingers(account) else f"{hint}\nTo keep it running without a login: loginctl enable-linger {account}"


class Finished(NamedTuple):
    """A job that has ended: its object path, its unit and systemd's result (done, failed, canceled, timeout ...)."""

    job: str
    unit: str
    result: str


def _uninterrupted(call: Callable[[], Result]) -> Result:
    """Return the result of CALL, repeated when a signal handler interrupts it: sd-bus returns EINTR then (compare PEP
    475).

    The manager may execute the interrupted call as well. Calls of ours can be repeated: one that queues a job returns
    the job that is queued already.
    """
    while True:
        try:
            return call()
        except InterruptedError:
            continue


def _open() -> Any:
    bus = DBus(user_mode=True)
    try:
        _uninterrupted(bus.open)
    except DBusBaseError as problem:
        raise BusError(f"can't reach the systemd user manager ({_message(problem)})", hint=_start_manager()) from None
    return bus


def _message(problem: Any) -> str:
    text = getattr(problem, "err_message", b"") or b""
    if text:
        return str(text.decode("utf-8", "replace") if isinstance(text, bytes) else text).rstrip(".")
    number = abs(getattr(problem, "errno", 0))
    return os.strerror(number) if number else str(problem)


class Manager:
    """A connection for calls. Use it in one thread, as a context manager."""

    def __init__(self) -> None:
        self._bus = _open()
        self._subscribed = False

    def close(self) -> None:
        self._bus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(
        self, method: str, signature: str = "", *words: Any, path: bytes = MANAGER, interface: bytes = MANAGER_INTERFACE
    ) -> Any:
        arguments = apply_signature(signature.encode(), list(words)) if signature else []
        return self._send(method, arguments, path, interface)

    def _send(
        self, method: str, arguments: list[Any], path: bytes = MANAGER, interface: bytes = MANAGER_INTERFACE
    ) -> Any:
        try:
            return _uninterrupted(
                lambda: self._bus.call_method(DESTINATION, path, interface, method.encode(), arguments).body
            )
        except DBusBaseError as problem:
            raise BusError(f"systemd refused {method}: {_message(problem)}") from None

    def environment(self) -> dict[str, str]:
        """Return the environment that the manager gives to units."""
        found = self._call("Get", "ss", MANAGER_INTERFACE, b"Environment", interface=PROPERTIES)
        pairs = (_text(each).partition("=") for each in found or ())
        return {name: value for name, _, value in pairs}

    def subscribe(self) -> None:
        """Ask the manager to send signals; it sends none before. It refuses a second time on the same connection."""
        if not self._subscribed:
            self._call("Subscribe")
            self._subscribed = True

    def start(self, unit: str, mode: str = "replace") -> str:
        """Queue a start; return the job's object path. MODE as in ``systemctl --job-mode``."""
        return _text(self._call("StartUnit", "ss", unit.encode(), mode.encode()))

    def stop(self, unit: str, mode: str = "replace") -> str:
        return _text(self._call("StopUnit", "ss", unit.encode(), mode.encode()))

    def restart(self, unit: str, mode: str = "replace") -> str:
        return _text(self._call("RestartUnit", "ss", unit.encode(), mode.encode()))

    def reload(self, unit: str) -> str:
        return _text(self._call("ReloadUnit", "ss", unit.encode(), b"replace"))

    def start_transient(self, unit: str, properties: Iterable[UnitProperty]) -> str:
        """Make a transient UNIT and queue its start; return the job's object path. An existing one is an error."""
        end = (-1, None)
        arguments = [*apply_signature(b"ss", [unit.encode(), b"fail"]), (ord("a"), b"(sv)")]
        for name, signature, value in properties:
            # apply_signature can't do variants.
            kind = signature.encode()
            arguments += [(ord("r"), b"sv"), (ord("s"), name.encode()), (ord("v"), kind)]
            arguments += [*apply_signature(kind, [_encoded(value)]), end, end]
        # No further units.
        arguments += [end, (ord("a"), b"(sa(sv))"), end]
        return _text(self._send("StartTransientUnit", arguments))

    def kill(self, unit: str, number: int) -> None:
        """Send a signal to all processes of UNIT. A unit that isn't loaded has none."""
        self._call_if_loaded("KillUnit", "ssi", unit.encode(), b"all", number)

    def reset_failed(self, unit: str) -> None:
        """Forget failures and the count of starts. A unit that isn't loaded has none."""
        self._call_if_loaded("ResetFailedUnit", "s", unit.encode())

    def _call_if_loaded(self, method: str, signature: str, *words: Any) -> None:
        try:
            self._call(method, signature, *words)
        except BusError as problem:
            if "not loaded" not in problem.sentence:
                raise

    def daemon_reload(self) -> None:
        """Make the manager reload unit files."""
        self._call("Reload")

    def enable(self, units: Iterable[str]) -> list[tuple[str, str, str]]:
        """Enable UNITS as ``systemctl enable`` does; return the changes made (kind, link, target)."""
        return self._unit_files("EnableUnitFiles", "asbb", units, False, False)

    def disable(self, units: Iterable[str]) -> list[tuple[str, str, str]]:
        return self._unit_files("DisableUnitFiles", "asb", units, False)

    def _unit_files(
        self, method: str, signature: str, units: Iterable[str], *flags: bool
    ) -> list[tuple[str, str, str]]:
        answer = self._call(method, signature, [unit.encode() for unit in units], *flags)
        changes = answer[1] if answer and isinstance(answer[0], bool) else answer or ()
        return [(_text(kind), _text(link), _text(target)) for kind, link, target in changes]

    def units_like(self, *patterns: str) -> list[str]:
        """Return names of loaded units that match PATTERNS (glob(7))."""
        found = self._call("ListUnitsByPatterns", "asas", [], [pattern.encode() for pattern in patterns])
        return [_text(row[0]) for row in found or ()]

    def unit_states(self, *patterns: str) -> dict[str, tuple[str, str]]:
        """Return the active state and the sub-state of loaded units that match PATTERNS, by name: of many in one
        call.
        """
        found = self._call("ListUnitsByPatterns", "asas", [], [pattern.encode() for pattern in patterns])
        return {_text(row[0]): (_text(row[3]), _text(row[4])) for row in found or ()}

    def running_services(self, pattern: str) -> dict[str, bytes]:
        """Return the object paths of services that match PATTERN, run, and have no job, by unit."""
        found = self._call("ListUnitsByPatterns", "asas", [], [pattern.encode()])
        states = (b"loaded", b"active", b"running")
        return {_text(row[0]): row[6] for row in found or () if row[2:5] == states and not row[7]}

    def unit_files_like(self, *patterns: str) -> list[str]:
        """Return names of installed unit files that match PATTERNS."""
        found = self._call("ListUnitFilesByPatterns", "asas", [], [pattern.encode() for pattern in patterns])
        return [os.path.basename(_text(row[0])) for row in found or ()]

    def facts(self, unit: str) -> UnitFacts:
        """Return the properties of UNIT; those of an unknown unit say ``not-found``."""
        found = self._all(unit)
        triggers = (_text(each) for each in found.get(b"TriggeredBy", ()))
        timer = next((each for each in triggers if each.endswith(".timer")), None)
        return facts_of(unit, found, self._all(timer) if timer else {})

    def _all(self, unit: str) -> dict[bytes, Any]:
        # The manager loads a unit that is asked for by its path, as `systemctl show` does.
        path = path_encode(UNITS, unit.encode())
        found: dict[bytes, Any] = self._call("GetAll", "s", b"", path=path, interface=PROPERTIES)
        return found

    def properties(self, unit: str) -> dict[str, Any]:
        """Return every property of UNIT, as ``systemctl show`` has them; bytes made text."""
        return {_text(key): _plain(value) for key, value in self._all(unit).items()}

    def processes(self, unit: str) -> list[int]:
        """Return the pids in the unit's control group."""
        try:
            found = self._call("GetUnitProcesses", "s", unit.encode())
        except BusError:
            return []
        return [row[1] for row in found or ()]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _encoded(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list | tuple):
        return type(value)(_encoded(item) for item in value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


def _ended(commands: Any) -> CommandExit:
    """Return how the last of COMMANDS ended that ran and whose failure counts (the type of ``ExecStartPre`` and its
    like).
    """
    for _, words, ignored, began, _, _, _, _, code, status in reversed(commands or ()):
        if code and not ignored:
            return CommandExit(code, status, tuple(map(_text, words)), began / 1e6)
    return CommandExit()


def facts_of(unit: str, found: Mapping[bytes, Any], timer: Mapping[bytes, Any]) -> UnitFacts:
    """Return the facts that a unit's properties hold, and those of the timer that starts it, if it has one."""

    def text(name: bytes) -> str:
        return _text(found.get(name, b""))

    def seconds(name: bytes) -> float:
        return float(found.get(name, 0)) / 1e6

    memory = found.get(b"MemoryCurrent", NO_MEMORY_FIGURE)
    cpu = found.get(b"CPUUsageNSec", NO_MEMORY_FIGURE)
    job = found.get(b"Job", (0, b"/"))
    start_commands = found.get(b"ExecStartPre") or ()
    due = int(timer.get(b"NextElapseUSecRealtime", 0))
    return UnitFacts(
        unit=unit,
        load_state=text(b"LoadState"),
        active_state=text(b"ActiveState"),
        sub_state=text(b"SubState"),
        result=text(b"Result") or "success",
        file_state=text(b"UnitFileState"),
        fragment=text(b"FragmentPath"),
        drop_ins=tuple(_text(path) for path in found.get(b"DropInPaths", ())),
        need_reload=bool(found.get(b"NeedDaemonReload", False)),
        can_reload=bool(found.get(b"CanReload", False)),
        job=_text(job[1]) if job[0] else "",
        main_pid=int(found.get(b"MainPID", 0)),
        exit_code=int(found.get(b"ExecMainCode", 0)),
        exit_status=int(found.get(b"ExecMainStatus", 0)),
        restarts=int(found.get(b"NRestarts", 0)),
        active_since=seconds(b"ActiveEnterTimestamp"),
        changed_at=seconds(b"StateChangeTimestamp"),
        started_at=seconds(b"ExecMainStartTimestamp"),
        # systemd forgets about the commands when it reloads its configuration.
        begun_at=(start_commands[0][3] / 1e6 if start_commands else 0.0) or seconds(b"ExecMainStartTimestamp"),
        ended_at=seconds(b"ExecMainExitTimestamp"),
        invocation=bytes(found.get(b"InvocationID", ())).hex(),
        control_group=text(b"ControlGroup"),
        memory=None if memory == NO_MEMORY_FIGURE else int(memory),
        cpu_seconds=None if cpu == NO_MEMORY_FIGURE else cpu / 1e9,
        start_exit=_ended(start_commands),
        probe_exit=_ended(found.get(b"ExecStartPost")),
        reload_exit=_ended(found.get(b"ExecReload")),
        reload_result=text(b"ReloadResult") or "success",
        restart_delay=seconds(b"RestartUSec"),
        status_text=text(b"StatusText"),
        oneshot=text(b"Type") == "oneshot",
        timer=_text(timer.get(b"SubState", b"")),
        next_run=0.0 if due == NEVER else due / 1e6,
    )


class Signals:
    """A connection for signals: finished jobs, and which units changed.

    Open it and `Manager.subscribe` before dispatching a job. ``fd`` becomes readable when there is something to
    `drain`.
    """

    def __init__(self) -> None:
        self._bus = _open()
        self._finished: list[Finished] = []
        self._changed: set[str] = set()
        self._receivers: list[Callable[..., None]] = []
        self._match(b"JobRemoved", MANAGER, MANAGER_INTERFACE, self._job_removed)

    def watch_units(self) -> None:
        """Also gathers the object paths of units whose properties change, and ``""`` after a daemon-reload."""
        self._match(b"PropertiesChanged", None, PROPERTIES, self._unit_changed)
        self._match(b"Reloading", MANAGER, MANAGER_INTERFACE, self._reloading)

    def _match(self, member: bytes, path: bytes | None, interface: bytes, callback: Callable[[Any], None]) -> None:
        def received(message: Any, error: Any = None, userdata: Any = None) -> None:
            callback(message)

        # pystemd hangs an attribute on what it is given, which a bound method refuses, and holds no reference to it.
        self._receivers.append(received)
        try:
            _uninterrupted(lambda: self._bus.match_signal(DESTINATION, path, interface, member, received, None))
        except DBusBaseError as problem:
            raise BusError(f"can't listen to systemd's signals ({_message(problem)})") from None

    def _job_removed(self, message: Any) -> None:
        message.process_reply(True)
        _, job, unit, result = message.body
        self._finished.append(Finished(_text(job), _text(unit), _text(result)))

    def _unit_changed(self, message: Any) -> None:
        message.process_reply(True)
        self._changed.add(unit_of_path(_text(message.headers.get("Path", b""))))

    def _reloading(self, message: Any) -> None:
        message.process_reply(True)
        if not message.body:  # This signal is also sent when the reload begins.
            self._changed.add("")

    @property
    def fd(self) -> int:
        return int(self._bus.get_fd())

    def drain(self) -> list[Finished]:
        """Return the jobs that have ended since the last call. Does not block."""
        try:
            while not _uninterrupted(self._bus.process).is_empty():
                pass
        except DBusBaseError as problem:
            raise BusError(f"the connection to the systemd user manager broke ({_message(problem)})") from None
        finished, self._finished = self._finished, []
        return finished

    def changed(self) -> set[str]:
        """Return units that changed since the last call, as far as drained."""
        changed, self._changed = self._changed, set()
        return changed

    def wait(self, deadline: float) -> list[Finished]:
        """Wait for a finished job until DEADLINE (time.monotonic()); return an empty list when none came."""
        while not (finished := self.drain()):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            if self.fd < 0:
                raise BusError("the connection to the systemd user manager ended", hint=_start_manager())
            # Not select(2): its descriptors must be below 1024. The descriptor can change as messages are drained.
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            poll.poll(1000 * remaining)
        return finished

    def close(self) -> None:
        self._bus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def unit_of_path(path: str) -> str:
    """Return the unit whose object path this is (sd_bus_path_encode(3))."""
    encoded = path.rpartition("/")[2].encode()
    plain = bytearray()
    position = 0
    while position < len(encoded):
        if encoded[position : position + 1] == b"_":
            plain += bytes.fromhex(encoded[position + 1 : position + 3].decode())
            position += 3
        else:
            plain.append(encoded[position])
            position += 1
    return plain.decode("utf-8", "replace")
