"""Reading a service's properties while its state changes, which a real manager does not do on demand."""

from types import SimpleNamespace
from typing import Any

import pytest

from helmd.systemd.bus import Manager

CHANGED = b"StateChangeTimestampMonotonic"
OTHERS = {b"ActiveState": b"active", b"DropInPaths": [], b"Job": (0, b"/"), b"TriggeredBy": []}


class Bus:
    """A manager's side: each read of the state's time gives the next of TIMES; properties have values of before, all
    at once of after."""

    def __init__(self, *times: int) -> None:
        self.times = list(times)
        self.methods: list[str] = []

    def call_method(self, _: bytes, path: bytes, interface: bytes, method: bytes, arguments: list[Any]) -> Any:
        self.methods.append(method.decode())
        if method == b"LoadUnit":
            return SimpleNamespace(body=b"/unit")
        if method == b"GetAll":
            return SimpleNamespace(body={b"ActiveState": b"inactive", b"MainPID": 0})
        name = arguments[-1][1]
        if name == CHANGED:
            return SimpleNamespace(body=self.times.pop(0))
        return SimpleNamespace(body=OTHERS.get(name, 0))


def manager_on(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> Manager:
    monkeypatch.setattr("helmd.systemd.bus._open", lambda: bus)
    return Manager()


def test_a_unit_that_changes_while_it_is_read_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus(1, 2)
    facts = manager_on(bus, monkeypatch).facts("a.service")
    assert bus.methods[-1] == "GetAll" and bus.methods.count("GetAll") == 1
    assert (facts.active_state, facts.main_pid) == ("inactive", 0), "not the state of before and the process of after"


@pytest.mark.parametrize("unit, whole", [("a.service", 0), ("a.socket", 1)])
def test_a_unit_that_stays_as_it_is(unit: str, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus(7, 7)
    facts = manager_on(bus, monkeypatch).facts(unit)
    assert bus.methods.count("GetAll") == whole, "only services are read property by property"
    assert facts.active_state == ("inactive" if whole else "active")
