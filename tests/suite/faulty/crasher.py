#!/usr/bin/python3
"""Prints a line, and exits with code 3 after AFTER seconds (1)."""

import os
import sys
import time

after = float(os.environ.get("AFTER", "1"))
print(f"crasher starts, {after:g} s to go", flush=True)
time.sleep(after)
print("ERROR: crasher gives up", file=sys.stderr, flush=True)
sys.exit(3)
