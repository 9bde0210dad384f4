#!/usr/bin/python3 -Es
"""helmctl: the command line of HiveMatrix Helm. The commands are in `helmd.cli`."""

from helmd.cli.main import run

if __name__ == "__main__":
    run()
