"""The steps of an operation on services, and its options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

StepKind = Literal["in_progress", "done", "already", "failed", "skipped", "killed", "queued"]
Code = Literal["", "start_failed", "not_healthy", "dependency_failed", "port_taken", "timeout", "failed", "bus"]


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to one service. ``sentence`` has no full stop; ``lines`` are its last log lines."""

    service: str
    kind: StepKind
    sentence: str
    code: Code = ""
    seconds: float = 0.0
    hint: str = ""
    lines: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        return self.kind in ("failed", "skipped")


@dataclass(frozen=True, slots=True)
class OperationResult:
    """All steps of one operation, in the order in which they ended."""

    steps: tuple[Step, ...]

    @property
    def good(self) -> bool:
        return not any(step.bad for step in self.steps)

    @property
    def cause(self) -> Step | None:
        """The first failure, which is why others were skipped."""
        return next((step for step in self.steps if step.kind == "failed"), None)


@dataclass(frozen=True, slots=True)
class Options:
    """``timeout`` (seconds) bounds the whole operation; None leaves it to each service's own. ``refused`` are services
    that can't be started as they are configured, with the reason as a sentence. With ``schedules``, a service with a
    schedule is started and stopped as that: its timer is, and no run is begun."""

    block: bool = True
    with_dependencies: bool = True
    timeout: float | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    schedules: bool = False
