"""Resource usage from control groups, with real processes."""

import os
from pathlib import Path

from helmd.systemd.usage import UsageMeter, read_group


def group_at(path: Path, usec: int | None, memory: int | None, pids: tuple[int, ...] = ()) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if usec is not None:
        (path / "cpu.stat").write_text(f"usage_usec {usec}\nuser_usec 1\nsystem_usec 1\n")
    if memory is not None:
        (path / "memory.current").write_text(f"{memory}\n")
    (path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return path


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def test_the_kernels_accounting_is_preferred(tmp_path: Path) -> None:
    group_at(tmp_path / "a.service", 1_500_000, 50 << 20, (os.getpid(),))
    assert read_group(tmp_path / "a.service") == (1.5, 50 << 20)


def test_without_accounting_processes_are_summed_including_subgroups(tmp_path: Path) -> None:
    group = group_at(tmp_path / "a.service", 1_500_000, None)
    group_at(group / "worker", None, None, (os.getpid(),))
    usage = UsageMeter(tmp_path).measure("/a.service", "run1", 100.0)
    assert usage.memory_mb is not None
    assert abs(usage.memory_mb - resident_mb()) < 0.2 * resident_mb()


def test_processor_time_becomes_percent_of_one_processor(tmp_path: Path) -> None:
    meter = UsageMeter(tmp_path)
    group_at(tmp_path / "a.service", 1_000_000, 1 << 20)
    assert meter.measure("/a.service", "run1", 100.0).cpu_percent is None
    group_at(tmp_path / "a.service", 4_000_000, 1 << 20)
    assert meter.measure("/a.service", "run1", 110.0).cpu_percent == 30.0


def test_usage_restarts_with_the_service(tmp_path: Path) -> None:
    meter = UsageMeter(tmp_path)
    group_at(tmp_path / "a.service", 9_000_000, 1 << 20)
    meter.measure("/a.service", "run1", 100.0)
    group_at(tmp_path / "a.service", 1_000_000, 1 << 20)
    assert meter.measure("/a.service", "run2", 110.0).cpu_percent is None
    meter.forget(())
    assert meter.measure("/a.service", "run2", 120.0).cpu_percent is None


def test_a_removed_group_has_no_usage(tmp_path: Path) -> None:
    usage = UsageMeter(tmp_path).measure("/gone.service", "run1", 1.0)
    assert (usage.cpu_percent, usage.memory_mb) == (None, None)
