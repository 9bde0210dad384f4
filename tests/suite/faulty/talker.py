#!/usr/bin/python3
"""Prints numbered entries of the kinds that services print: plain text, JSON, errors with tracebacks on stderr.

BURST entries (1000) every EVERY seconds (1; 0: without pause), COUNT in total (60000; 0: unlimited). NAME is part of
each entry. After the last one it waits for SIGTERM.

`wanted` returns the entry expected in the log store; tests import it.
"""

import json
import os
import signal
import sys
import time

TOGETHER = 100
"""Entries per write(2) on each stream."""
TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/hive/talker.py", line {line}, in main
    answer()
  File "/srv/hive/talker.py", line 7, in answer
    raise ValueError(question)
ValueError: question {number}"""


def wanted(name: str, number: int) -> tuple[str, str, str | None, str]:
    """Return level, message, trace id and stream of an entry."""
    text = f"entry {number} of {name}: "
    match number % 4:
        case 0:
            return "INFO", text + "as it is, größer \N{SNOWMAN} \t\\N 'x'", None, "stdout"
        case 1:
            return "WARNING", text + 'JSON "with quotes"\nand two lines', f"{name}-{number}", "stdout"
        case 2:
            traceback = TRACEBACK.format(line=number % 1000, number=number)
            return "ERROR", text + f"failed\n{traceback}", None, "stderr"
        case _:
            return "DEBUG", text + "by logging", None, "stdout"


def printed(name: str, number: int) -> bytes:
    """Return the printed form of an entry."""
    level, message, trace, _ = wanted(name, number)
    match number % 4:
        case 0:
            line = message
        case 1:
            line = json.dumps(
                {"level": level.lower(), "logger": "talker", "message": message, "correlation_id": trace, "n": number}
            )
        case _:
            line = f"{level}:talker:{message}"
    return line.encode() + b"\n"


def write(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]


def main() -> None:
    name = os.environ["NAME"]
    burst, every = int(os.environ.get("BURST", "1000")), float(os.environ.get("EVERY", "1"))
    count = int(os.environ.get("COUNT", "60000"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    number, due = 0, time.monotonic()
    while count == 0 or number < count:
        last = number + burst if count == 0 else min(number + burst, count)
        while number < last:
            numbers = range(number + 1, min(number + TOGETHER, last) + 1)
            write(1, b"".join(printed(name, n) for n in numbers if n % 4 != 2))
            write(2, b"".join(printed(name, n) for n in numbers if n % 4 == 2))
            number = numbers[-1]
        due += every
        time.sleep(max(0.0, due - time.monotonic()))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
