"""Lines that may begin a crash dump, the lines that confirm it, and lines in between."""

import re

JAVA_STACK, NODE, QUOTED = "java", "node", "quoted"
NODE_FILE, NODE_SOURCE, RACE_RULE, JVM_RULE = "node-file", "node-source", "race-rule", "jvm-rule"
JUL = "java.util.logging"
HEADLINE, BOX, EXCERPT, FORTRAN = "headline", "box", "excerpt", "fortran"
HELD = frozenset({NODE_FILE, NODE_SOURCE, RACE_RULE, JVM_RULE, JUL, QUOTED, HEADLINE, BOX, EXCERPT, FORTRAN})
"""States of lines that begin a dump only if `confirmed` by a later one; otherwise each is an entry of its own."""

_JUL_LEVEL = re.compile(r"([A-ZÄÉÓÜ]{4,13}) ?: ")
_JUL_STATES = {
    word: f"jul-{level}"
    for level, words in (
        ("severe", "SEVERE SCHWERWIEGEND GRAVE"),
        ("warning", "WARNING WARNUNG AVERTISSEMENT ADVERTENCIA AVVERTENZA"),
    )
    for word in words.split()
}
"""Levels of java.util.logging, which prints them in the locale's language; other words are at most INFO."""
_FRAME = re.compile(r"\s{1,40}at (?:[^\n]{1,600}:\d{1,9}:\d{1,9}\)?\Z|[\w.$/@<>-]{1,400}\([^()\n]{1,300}\)\Z)")
"""A frame of a stack trace of JavaScript or Java."""
_SANITIZER = re.compile(r"==\d{1,12}==\s?ERROR: ")
EXCERPT_LINE = re.compile(r"\s{0,5}\d{1,6} \| ")
_EXCERPT_ERROR = re.compile(r"(?:error|[A-Z]\w{0,60}Error): ")
_CARET = re.compile(r"\s{0,4000}[\^~]+\s{0,40}\Z")


def confirmed(state: str, text: str) -> str | None:
    """Return the state of a dump if TEXT confirms that lines held in STATE begin one, else None."""
    if state == JVM_RULE:
        return "jvm" if text.startswith(("# A fatal error has been", "# There is insufficient memory for")) else None
    if state == JUL:
        level = _JUL_LEVEL.match(text)
        return None if level is None else _JUL_STATES.get(level[1], "jul-info")
    if state == RACE_RULE:
        if _SANITIZER.match(text):
            return "native"
        return "race" if text.startswith(("WARNING: DATA RACE", "WARNING: ThreadSanitizer: ")) else None
    if state == HEADLINE:
        return "lua" if text == "stack traceback:" else "stack" if text.startswith("CallStack (from Has") else None
    if state == BOX:
        begins = text[:10]
        return "box-warning" if begins == "│ Warning:" else "box-error" if begins[:8] == "│ Error:" else None
    if state == EXCERPT:
        return JAVA_STACK if _EXCERPT_ERROR.match(text) else None
    if state == FORTRAN:
        return "native" if text.startswith("Fortran runtime ") else None
    if state == QUOTED:
        return JAVA_STACK if _FRAME.match(text) else None
    return NODE if state == NODE_SOURCE and _CARET.match(text) else None


def held_after(state: str, text: str) -> str | None:
    """Return the state of held lines after TEXT, in STATE before it, or None if TEXT is not to be held."""
    if state == NODE_FILE:
        return NODE_SOURCE
    return state if state == EXCERPT and (EXCERPT_LINE.match(text) or _CARET.match(text)) else None
