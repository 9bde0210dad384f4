"""The hostile registry files: those that are written out beside this file, and those that are too big for that.

A file says itself what is expected: ``# expect LINE: WORDS`` means one fault at that line whose text begins with WORDS.
There are to be no others.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_EXPECT = re.compile(r"^# expect (\d+): (.*)$", re.MULTILINE)

SERVICES = 2000
"""How many services the generated chains have: more than Python's stack would bear."""


@dataclass(frozen=True)
class Case:
    """A registry file and the faults to be found in it: line (0: the file as a whole) and how the text begins."""

    name: str
    content: bytes
    expected: tuple[tuple[int, str], ...]


def _written(path: Path) -> Case:
    content = path.read_bytes()
    found = _EXPECT.findall(content.decode())
    return Case(path.stem, content, tuple((int(line), words) for line, words in found))


def _command(name: str, more: str) -> str:
    return f'[services.{name}]\ntype = "command"\nstart_command = ["/bin/true"]\n{more}\n'


def _generated() -> list[Case]:
    chain = "".join(_command(f"s{n}", f'depends_on = ["s{(n + 1) % SERVICES}"]') for n in range(SERVICES))
    long = "x" * 300_000
    evil = _command("evil", "")
    digits = "0x" + "f" * 9000
    return [
        Case(
            "megabyte_value",
            _command("evil", f'description = "{"x" * (1 << 20)}"').encode(),
            ((0, "is larger than 1 MiB"),),
        ),
        Case(
            "long_values",
            f'{evil}description = "{long}"\nenvironment = {{ LONG = "{long}" }}\nport = "{long}"\n'.encode(),
            (
                (5, "services.evil.description: is 300,000 characters long; at most 4,096 are allowed"),
                (6, "services.evil.environment: LONG is 300,000 characters long; at most 32,768 are allowed"),
                (7, "services.evil.port: must be an integer, not 'xxxx"),
            ),
        ),
        Case(
            "long_keys",
            f"{evil}{long} = 1\n[services.{long}y]\n[{long}z]\n".encode(),
            (
                (5, "services.evil.xxxx"),
                (6, "services.xxxx"),
                (7, "xxxx"),
            ),
        ),
        Case("long_twice", f"[services.{long}]\n[services.{long}]\n".encode(), ((2, "is not valid TOML: Cannot"),)),
        Case("nested", f"[services.evil]\nport = {'[' * 100_000}".encode(), ((0, "is nested too deeply"),)),
        Case(
            "huge_number",
            f"[services.evil]\nport = 1{'0' * 100_000}\n".encode(),
            ((0, "is not valid TOML: a number has too many digits"),),
        ),
        Case(
            "huge_hexadecimal",
            f"{evil}port = {digits}\nlimits.memory_max = {digits}\nhealth.timeout = {digits}\n".encode(),
            (
                (5, "services.evil.port: must be from 1 to 65,535, not a number of too many digits"),
                (6, "services.evil.limits.memory_max: must be a size such as"),
                (7, "services.evil.health.timeout: must be a duration such as"),
            ),
        ),
        Case("long_cycle", chain.encode(), ((4, "services.s0.depends_on: is a cycle: s0 -> s1"),)),
        Case(
            "many_faults",
            (evil + "".join(f"key{n} = {n}\n" for n in range(2000))).encode(),
            tuple((5 + n, f"services.evil.key{n}: is not a known setting") for n in range(2000)),
        ),
        Case("not_utf8", evil.encode() + b'description = "caf\xe9"\n', ((5, "is not UTF-8 text"),)),
        Case("utf16", evil.encode("utf-16"), ((1, "is not UTF-8 text"),)),
        Case(
            "nul",
            evil.encode() + b"description = 'a\0b'\n",
            ((5, "is not valid TOML: Found invalid character '\\x00'"),),
        ),
    ]


CASES = [*(_written(path) for path in sorted(Path(__file__).parent.glob("*.toml"))), *_generated()]
