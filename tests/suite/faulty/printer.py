#!/usr/bin/python3
"""Prints "line 1", "line 2" … at a constant rate.

RATE lines per second (1000), COUNT lines in total (60000; 0: unlimited), STREAM stdout or stderr. Line n is printed at
start + (n - 1)/RATE, without accumulating delays. Exits with 0 after the last line, or with HOLD=1 waits for SIGTERM.
Each line is one write(2).
"""

import os
import signal
import sys
import time

rate = float(os.environ.get("RATE", "1000"))
count = int(os.environ.get("COUNT", "60000"))
descriptor = 2 if os.environ.get("STREAM") == "stderr" else 1
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

start = time.monotonic()
number = 0
while count == 0 or number < count:
    number += 1
    ahead = start + (number - 1) / rate - time.monotonic()
    if ahead > 0:
        time.sleep(ahead)
    os.write(descriptor, b"line %d\n" % number)

while os.environ.get("HOLD") == "1":
    signal.pause()
