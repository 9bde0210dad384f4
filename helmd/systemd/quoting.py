"""Values in unit files, escaped as systemd.syntax(7), systemd.service(5) and systemd.unit(5) "Specifiers" say.

Control characters never reach here (the registry refuses them); if one does, that is a fault in Helm, hence ValueError.
"""

from collections.abc import Iterable

from helmd.model.suite.shell_syntax import MAINPID


def _checked(value: str) -> str:
    if any(not c.isprintable() and c != "\t" for c in value):
        raise ValueError(f"a control character can't stand in a unit: {ascii(value)[:80]}")
    return value


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'


def exec_word(value: str) -> str:
    """Return one word of a command line: no specifier, no variable, no splitting."""
    return _quoted(_checked(value).replace("%", "%%").replace("$", "$$"))


def command_line(words: Iterable[str]) -> str:
    """Return a command line for ``ExecStart=`` and similar settings. The first word is the program, as a plain path."""
    program, *rest = words
    first = _checked(program).replace("%", "%%")
    if any(c in first for c in " \t\"'\\$;") or first[:1] in "-@:+!":
        first = exec_word(program)
    return " ".join([first, *(word if _bare(word) else exec_word(word) for word in rest)])


def reload_command(words: Iterable[str]) -> str:
    """Return a command line for ``ExecReload=``, in which the word $MAINPID is the pid of the service."""
    return command_line(words).replace(f" {exec_word(MAINPID)}", f" {MAINPID}")


def _bare(word: str) -> bool:
    return word != "" and all(c.isascii() and (c.isalnum() or c in "/._-=,:@+") for c in word)


def assignment(name: str, value: str) -> str:
    """Return one ``Environment=`` assignment. Dollar signs have no meaning there; percent signs do."""
    return _quoted(_checked(f"{name}={value}").replace("%", "%%"))


def line(value: str) -> str:
    """Return the rest of a line, such as a ``Description=``; a backslash at its end must not continue it."""
    text = _checked(value).replace("%", "%%").strip()
    return text + " " if text.endswith("\\") else text


def escaped_path(value: object) -> str:
    """Return a path in a list of paths."""
    text = _checked(str(value)).replace("%", "%%")
    return _quoted(text) if any(c in text for c in " \t\"'\\") else text
