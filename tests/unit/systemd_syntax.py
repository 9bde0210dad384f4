"""How systemd 252 reads a unit file, as far as the tests need it: systemd.syntax(7), systemd.unit(5) "Specifiers",
systemd.service(5) "Command lines". Written from the manual pages, not from Helm's quoting, so that it can disagree.
"""

import re

_ESCAPES = dict(zip("abfnrtvs\\\"'", "\a\b\f\n\r\t\v \\\"'", strict=True))
_SPECIFIERS = {"h": "/home/of-specifier", "n": "name-of-specifier", "t": "/run/of-specifier", "i": "", "u": "user"}


def assignments(text: str) -> list[tuple[str, str, str]]:
    """Section, key and value of each line; lines that end in a backslash go on in the next."""
    found = []
    section = ""
    for line in text.replace("\\\n", " ").split("\n"):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            assert line.endswith("]"), line
            section = line[1:-1]
            continue
        key, equals, value = line.partition("=")
        assert equals and section, line
        found.append((section, key.strip(), value.strip()))
    return found


def words(value: str) -> list[str]:
    """Return VALUE split at blanks, quotes taken off and C escapes resolved.

    A bare ``;`` would begin another command.
    """
    found = []
    word: str | None = None
    quote = ""
    position = 0
    while position < len(value):
        c = value[position]
        if c == "\\":
            position += 1
            assert position < len(value), "ends in a backslash"
            escape = value[position]
            if escape == "x":
                word = (word or "") + chr(int(value[position + 1 : position + 3], 16))
                position += 2
            else:
                assert escape in _ESCAPES, f"unknown escape \\{escape}"
                word = (word or "") + _ESCAPES[escape]
        elif quote:
            if c == quote:
                quote = ""
            else:
                word = (word or "") + c
        elif word is None and re.match(r";(\s|$)", value[position:]):
            raise AssertionError("an unquoted ';' begins another command")
        elif c in "\"'":
            quote = c
            word = word or ""
        elif c in " \t\n\r":
            if word is not None:
                found.append(word)
                word = None
        else:
            word = (word or "") + c
        position += 1
    assert not quote, "a quote is never closed"
    return found if word is None else [*found, word]


def specifiers(value: str) -> str:
    """Return VALUE with its specifiers resolved; an unknown one is left as it is."""
    return re.sub(
        "%(.)", lambda found: "%" if found[1] == "%" else _SPECIFIERS.get(found[1], found[0]), value, flags=re.DOTALL
    )


def _variables(word: str, environment: dict[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else environment.get(found[1], "")

    return re.sub(r"\$\$|\$\{(\w*)\}", value, word)


def command(value: str, environment: dict[str, str]) -> list[str]:
    """Return the argument vector of ``ExecStart=VALUE`` in ENVIRONMENT. The first word is a path and knows no
    variables.
    """
    split = [specifiers(word) for word in words(value)]
    assert split[0][:1] not in "-@:+!", "a prefix"
    found = split[:1]
    for word in split[1:]:
        alone = re.fullmatch(r"\$([A-Za-z_]\w*)", word)
        found += environment.get(alone[1], "").split() if alone else [_variables(word, environment)]
    return found


def environment(values: list[str]) -> dict[str, str]:
    """Return the variables that some ``Environment=`` lines set."""
    found: dict[str, str] = {}
    for value in values:
        for word in words(value):
            name, equals, content = specifiers(word).partition("=")
            assert equals and re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name), word
            found[name] = content
    return found
