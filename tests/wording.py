"""Words that are denied in the source and its documents, since the field has a term that everybody knows.

`tests/unit/test_wording.py` holds this. `python3 -m tests.wording FILE...` prints what is denied in files;
`python3 -m tests.wording --update` lowers the counts in EXEMPT after files were cleaned, and removes clean files. It
raises no count and adds no file.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
EXEMPT = TOP / "tests/wording_exempt.txt"
"""How many denied words each file still has, one file a line. A file that is not listed has none."""

DENIED: Mapping[str, str] = {
    "told|tells?|telling": "say, report, notify, warn",
    "mend(?:s|ed|ing)?": "fix, repair",
    "moments?": "time, timestamp, instant",
    "patients?": "context, host",
    "crews?": "thread pool, workers",
    "twins?": "duplicate",
    "strays?": "orphan, leftover",
    "wish(?:es|ed)?": "request, option",
    "rehears(?:e|es|ed|al)": "dry run, check",
    "portions?": "batch, chunk",
    "borders?": "boundary, limit",
    "flights": "single flight, request in progress",
    "rooms?": "package, memory, space",
    "dear": "expensive",
    "news": "event, update",
    "put(?:s|ting)?[ _]an[ _]end[ _]to": "cancel, end",
    "while_there": "until disconnected",
    "(?<!there )is no(?= )(?! longer| more| such)": "is not a, must be",
    "whole numbers?": "integer",
    "from [0-9]+ on": ">= N",
    "strangers?": "another process",
    "anew|afresh": "again",
    "(?:in the )?midst": "during",
    "in vain": "without result",
    "goes by": "uses",
    "hear(?:s|d)?": "receive, be notified",
    "for ever|as ever": "forever, as before",
    "(?:is|are|all) well": "healthy",
    "shall": "must",
    "lonely": "alone",
    "(?<!store_)upkeeps?(?!_seconds)": "maintenance",
    "patiently": "with a long timeout",
    "signs? of life": "keepalive, answer",
    "waited out": "retried",
    "taken up again": "continued, restored",
    "broken off": "interrupted, aborted",
    "(?:gives?|giving) way": "is replaced, yields to",
    "sees? to it": "ensure",
    "(?:be|is) had": "available, fetched",
    "what (?:came|comes|became|becomes) of": "result",
    "(?:its|and the|or the) like(?![a-z])": "similar",
    "at hand": "current, available",
    "graver": "more severe",
    "stranded": "unsupported, orphaned",
}
"""Regular expressions of what is denied, and what to write instead. Case does not matter; each part of an identifier is
a word."""

SELF = ("tests/wording.py", "tests/wording_exempt.txt", "tests/unit/test_wording.py")
NOT_OURS = ("LICENSE", "debian/copyright", "debian/po/", "helmd/web/static/vendor/")
BINARY = (".png",)
TERMS: Mapping[str, re.Pattern[str]] = {".css": re.compile(r"\bborder(?=[-:])")}
"""Terms of a language, by the suffix of its files, that are denied elsewhere."""

_WORDS = re.compile("|".join(rf"(?<![a-z])(?:{word})(?![a-z])" for word in DENIED), re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def files() -> list[str]:
    """Return the text files that are in the repository or about to be, without those that others wrote."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(
        name
        for name in set(listed)
        if name not in SELF
        and not name.startswith(NOT_OURS)
        and Path(name).suffix not in BINARY
        and (TOP / name).is_file()
    )


def denied(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the word of each denied word in TEXT."""
    for number, line in enumerate(text.splitlines(), 1):
        # A newline in the middle of CamelCase keeps its parts apart and no phrase together.
        for found in _WORDS.finditer(_CAMEL.sub("\n", line)):
            yield number, found.group()


@cache
def found_in(name: str) -> list[str]:
    """Return what is denied in a file, as ``FILE:LINE: WORD``."""
    path = TOP / name
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix in TERMS:
        text = TERMS[path.suffix].sub("", text)
    return [f"{name}:{number}: {word}" for number, word in denied(text)]


def exempt() -> dict[str, int]:
    lines = (line.split() for line in EXEMPT.read_text().splitlines() if line and not line.startswith("#"))
    return {name: int(count) for count, name in lines}


def update() -> None:
    """Lower the counts to what the files have now."""
    kept = {}
    for name, count in exempt().items():
        now = len(found_in(name)) if (TOP / name).is_file() else 0
        if now:
            kept[name] = min(count, now)
    head = [line for line in EXEMPT.read_text().splitlines() if line.startswith("#")]
    EXEMPT.write_text("\n".join([*head, *(f"{count} {name}" for name, count in sorted(kept.items()))]) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        update()
    else:
        print("\n".join(line for name in sys.argv[1:] or files() for line in found_in(name)))
