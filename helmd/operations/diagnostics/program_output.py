"""Running a program with a time limit, for what blocks for seconds: it has its own memory, time and event loop."""

import asyncio
import contextlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProgramOutput:
    """What a program printed to stdout and stderr, and its exit code."""

    code: int
    out: bytes
    errors: bytes


async def program_output(command: Sequence[str], seconds: float) -> ProgramOutput:
    """Run COMMAND without input. It is killed after SECONDS, or when cancelled. Raises TimeoutError, OSError."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert process.returncode is not None
    return ProgramOutput(process.returncode, out, errors)
