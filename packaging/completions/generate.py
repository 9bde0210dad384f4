#!/usr/bin/python3 -Es
"""Writes click's completion scripts for helmctl to where the shells of a Debian look for them: generate.py ROOT."""

import sys
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

PROGRAM, VARIABLE = "helmctl", "_HELMCTL_COMPLETE"
PLACES: dict[str, type[ShellComplete]] = {
    "usr/share/bash-completion/completions/helmctl": BashComplete,
    "usr/share/zsh/vendor-completions/_helmctl": ZshComplete,
    "usr/share/fish/vendor_completions.d/helmctl.fish": FishComplete,
}

_ZSH_SOURCED = "compdef _helmctl_completion helmctl;"
_ZSH_EITHER = """\
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    # Loaded from $fpath at the first completion: that completion is to be done as well.
    _helmctl_completion "$@"
else
    compdef _helmctl_completion helmctl
fi
"""


def script(kind: type[ShellComplete]) -> str:
    """The completion script for one shell; it asks helmctl itself, so it needs no command's name."""
    # Not source(): that one runs the shell to ask for its version, which a build machine may not have.
    shell = kind(click.Group(), {}, PROGRAM, VARIABLE)
    text = shell.source_template % shell.source_vars()
    if kind is not ZshComplete or "loadautofunc" in text:
        return text
    if _ZSH_SOURCED not in text:
        raise ValueError("click's script for zsh no longer ends as expected")
    return text.replace(_ZSH_SOURCED, _ZSH_EITHER)


def main(root: Path) -> None:
    for place, kind in PLACES.items():
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script(kind), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
