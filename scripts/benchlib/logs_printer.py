"""A service that prints lines. Arguments: NAME REPORT LINES SECONDS RATE EVERY DELAY.

After DELAY seconds it prints LINES lines (0: no limit) for at most SECONDS seconds (0: no limit), RATE per second in
batches every EVERY seconds, or without pause if RATE is 0. Then it writes the number of lines and the start and end
times to REPORT, and waits for a signal: journald can't determine the unit of lines whose process has ended.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from logs_lines import batch

_LINES_PER_WRITE = 100
"""Maximum number of lines per write(2), so that it fits into the socket's buffer."""


def put(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main(name: str, report: str, lines: int, seconds: float, rate: float, every: float, delay: float) -> None:
    time.sleep(delay)
    began = time.time()
    clock = time.monotonic()
    printed = 0
    while not lines or printed < lines:
        passed = time.monotonic() - clock
        if seconds and passed >= seconds:
            break
        if rate:
            due = int((passed + every) * rate) - printed
            if due <= 0:
                time.sleep(max(0.0005, (printed + 1) / rate - every - passed))
                continue
        else:
            due = _LINES_PER_WRITE
        count = min(due, _LINES_PER_WRITE, lines - printed) if lines else min(due, _LINES_PER_WRITE)
        put(batch(name, printed, count, time.time()))
        printed += count
        if rate and printed >= int((time.monotonic() - clock + every) * rate):
            time.sleep(every)
    done = {"printed": printed, "began": began, "ended": time.time()}
    temporary = Path(f"{report}.new")
    temporary.write_text(json.dumps(done))
    temporary.replace(report)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *(float(word) for word in sys.argv[4:8]))
