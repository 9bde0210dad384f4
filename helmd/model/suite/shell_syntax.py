"""Words of command lines and values of variables that a shell would read otherwise than systemd and Helm do."""

import re
from collections.abc import Iterator, Sequence

from helmd.model.suite.service import Service

MAINPID = "$MAINPID"
"""The variable that systemd sets for ``ExecReload=`` (systemd.exec(5)), as a word of a reload_command."""
SHELL_PROGRAMS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "busybox"})
_OPERATORS = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>&1", "&>", "1>"})
_VARIABLE = re.compile(r"(?:\A|[=:/@,])\$(?:[A-Z_][A-Z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\}|\()")
"""Where a word most likely wants the value of a variable or the output of a command; a lone "$" in other places is part
of a pattern or a password."""

_HOME = re.compile(r"(?:\A|[=:])~/")
"""Where a shell would put the home directory; for a program's own path Helm does."""


def shell_syntax(service: Service) -> Iterator[str]:
    """Yield a sentence without full stop for each setting of SERVICE that only a shell would understand."""
    commands = {
        "start_command": service.start_command,
        "pre_start": service.pre_start,
        "reload_command": [word for word in service.reload_command if word != MAINPID],
        **{f"{mode}.start_command": each.start_command for mode, each in service.modes.items()},
    }
    for setting, words in commands.items():
        if word := _shell_word(words):
            yield (
                f"services.{service.name}.{setting}: its program gets '{word}' verbatim, since no shell reads the"
                ' command line; with a shell: ["sh", "-c", "exec ..."]'
            )
    variables = {
        "environment": service.environment,
        **{f"{mode}.environment": each.environment for mode, each in service.modes.items()},
    }
    for setting, values in variables.items():
        for name, value in values.items():
            if _VARIABLE.search(value) or _HOME.search(value):
                yield f"services.{service.name}.{setting}.{name}: '{value}' is not expanded; write the value itself"


def _shell_word(words: Sequence[str]) -> str:
    """Return the first of WORDS that is meant for a shell; empty if none is, or if a shell gets them."""
    if any(word.rpartition("/")[2] in SHELL_PROGRAMS for word in words):
        return ""
    for place, word in enumerate(words):
        if word in _OPERATORS or _VARIABLE.search(word) or (place and _HOME.search(word)):
            return word
    return ""
