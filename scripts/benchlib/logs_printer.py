"""A service that prints: NAME REPORT LINES SECONDS RATE EVERY DELAY.

After DELAY seconds it prints LINES lines (0: no limit) for at most SECONDS seconds (0: no limit), RATE a second in
portions of EVERY seconds' worth, or as fast as they are taken when RATE is 0. Then REPORT says how many, and from when
to when. It ends when it is told to: of lines whose printer is gone journald can't tell the unit.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from logs_lines import batch

_AT_ONCE = 100
"""Lines to a write when there is no rate: below what a socket takes at once."""


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
            due = _AT_ONCE
        count = min(due, _AT_ONCE, lines - printed) if lines else min(due, _AT_ONCE)
        put(batch(name, printed, count, time.time()))
        printed += count
        if rate and printed >= int((time.monotonic() - clock + every) * rate):
            time.sleep(every)
    done = {"printed": printed, "began": began, "ended": time.time()}
    half = Path(f"{report}.new")
    half.write_text(json.dumps(done))
    half.replace(report)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *(float(word) for word in sys.argv[4:8]))
