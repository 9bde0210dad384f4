"""When the log store's disk counts as nearly full."""

from pathlib import Path

import pytest

from helmd.operations.logs import disk
from helmd.operations.logs.disk import LowDisk, space


@pytest.mark.parametrize(
    ("free", "least", "low"), [(99, 10, True), (100, 10, False), (0, 0, False), (0, 1, True), (1000, 50, False)]
)
def test_below_so_many_percent(free: int, least: int, low: bool) -> None:
    assert LowDisk(Path("/"), lambda total: total * least // 100, lambda _: (free, 1000))() is low


def test_it_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [0, 1000]
    low = LowDisk(Path("/"), lambda _: 100, lambda _: (free.pop(0), 1000))
    assert low()
    assert low()
    monkeypatch.setattr(disk, "_CHECK_SECONDS", -1)
    assert not low()


def test_a_path_that_is_not_there_yet_is_on_its_parents_disk(tmp_path: Path) -> None:
    free, total = space(tmp_path / "not" / "yet")
    assert total > 0
    assert free <= total


def test_a_disk_that_cannot_be_looked_at_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when its file system has gone: that must not end who asks."""
    monkeypatch.setattr(disk, "_CHECK_SECONDS", -1)
    answers: list[tuple[int, int] | None] = [(0, 1000), None, None, (1000, 1000)]

    def look(path: Path) -> tuple[int, int]:
        if (answer := answers.pop(0)) is None:
            raise OSError(5, "Input/output error", str(path))
        return answer

    low = LowDisk(Path("/"), lambda _: 100, look)
    assert [low(), low(), low(), low()] == [True, True, True, False]
    assert len(caplog.records) == 1
