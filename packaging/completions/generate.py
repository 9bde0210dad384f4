#!/usr/bin/python3 -Es
"""Writes helmctl's completion scripts to where the shells of a Debian look for them: generate.py ROOT."""

import sys
from pathlib import Path

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

PLACES: dict[str, type[ShellComplete]] = {
    "usr/share/bash-completion/completions/helmctl": BashComplete,
    "usr/share/zsh/vendor-completions/_helmctl": ZshComplete,
    "usr/share/fish/vendor_completions.d/helmctl.fish": FishComplete,
}


def main(root: Path) -> None:
    from helmd.cli.completion import script

    for place, kind in PLACES.items():
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script(kind), encoding="utf-8")


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main(Path(sys.argv[1]))
