#!/usr/bin/python3
"""Minifies the scripts and style sheets below a directory, each by itself, by esbuild: their names and imports stay."""

import subprocess
import sys
from pathlib import Path


def main() -> None:
    for path in sorted(Path(sys.argv[1]).rglob("*")):
        if path.suffix in (".js", ".css"):
            command = ["esbuild", "--minify", "--charset=utf8", "--log-level=warning", str(path)]
            path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)


if __name__ == "__main__":
    main()
