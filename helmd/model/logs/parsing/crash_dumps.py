"""Crash dumps of language runtimes: how they begin, their level, and which lines belong to them.

`start_of` examines a line that states no level itself, `continues` each line after it. The state determines what the
dump's next line may be. journald drops empty lines, so no rule depends on them.
"""

import re
from typing import NamedTuple

from helmd.model.logs.parsing.held_lines import (
    BOX,
    EXCERPT,
    EXCERPT_LINE,
    FORTRAN,
    HEADLINE,
    HELD,
    JAVA_STACK,
    JUL,
    JVM_RULE,
    NODE,
    NODE_FILE,
    QUOTED,
    RACE_RULE,
    confirmed,
)

PYTHON, PYTHON_ENDED, PYTHON_CHAINED = "python", "python-ended", "python-chained"
ANY_ERROR, NODE_ERROR, RUST, RUST_MESSAGE = "other", "node-error", "rust", "rust-message"
BOXED, INDENTED = "boxed-python", "indented"

INCOMPLETE = frozenset({PYTHON, PYTHON_CHAINED, BOXED, NODE, NODE_ERROR, RUST})
"""States after which more lines must follow, unless the writer has exited."""
OPEN_ENDED = frozenset(
    {PYTHON_ENDED, NODE_ERROR, "fatal-python", "erlang", "clojure", "elixir", "gin", "jvm-start", "haskell"}
)
"""States after which any line may belong to the dump: messages of exceptions may have several lines."""


class DumpStart(NamedTuple):
    """The state and level of a line that begins a dump."""

    state: str
    level: str | None
    """None if it is one only in combination with the lines that follow."""


_PYTHON_START = re.compile(r"\s{0,100}(?:\+ Exception Group )?Traceback \(most recent call last\):")
_BOX = re.compile(r"╭─{1,200} Traceback \(most recent call last\) ─{1,200}╮")
_EXCEPTION_NAME = r"(?:[A-Za-z_][\w.<>]{0,300}\.\w{1,300}|[A-Z_]\w{0,300})"
_PYTHON_END = re.compile(rf"(?!(?:DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\b){_EXCEPTION_NAME}(?:: |:?\Z)")
_PYTHON_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_SYNTAX_ERROR = re.compile(r'  File "[^"\n]{1,500}", line \d{1,9}\Z')

_JUL = re.compile(
    r"[A-Za-zäéû]{3,6}\.? \d\d?, \d{4} \d\d?:\d\d:\d\d [A-Za-z]{1,6}\.?(?: ?[a-z]\.)? "
    r"[\w.$]{1,300}(?: [\w.$<>-]{1,200})?\Z"
)
_QUOTED = re.compile(r".{1,400}?(?:Error|Exception)(?: \[\w{1,80}\])?: ")
_INDENTED_LEVEL = re.compile(
    r"\s{1,24}(?:(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S{0,16} {1,8}\[?)?"
    r"(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)"
    r"(?: {2,8}\S|\[\d{4}\] )| {17,23}CRITICAL \S| \d{1,6}:\d{1,6} {1,4}(?:error|warning) )"
)
"""Indented, but an entry of its own, of loggers that pad or omit the time."""
_CLASS = re.compile(r"(?:[A-Za-z_][\w$]{0,80}\.){1,12}[A-Z][\w$.]{0,120}(?=: |:?\Z)")
_ERROR_CLASS = re.compile(
    r"(?:Uncaught )?(?:[\w$]{1,80}[.:]{1,2}){0,12}[\w$]{0,80}(?:Error|Exception|Throwable)(?: \[\w{1,80}\])?"
    r"(?=:|\s?\{?\Z)"
)
_JAVA_MORE = re.compile(
    r"\s{1,40}at |>?\s{0,6}\d{1,6} \| |\s{0,40}\.\.\. \d{1,9} (?:more|common frames omitted|lines matching)"
    r"|\s{0,40}(?:Caused by|Suppressed|Thrown at):"
    r"|at (?:async )?[\w.$<>/]{1,300} ?\(|---> |\s{1,20}---> |\s{0,20}--- End of "
)
_JAVA_END = re.compile(
    r"(?:\s{0,12}(?:Caused by|Suppressed): |\s{0,12}\[cause\]: |[}\]],?\Z|\}? ?\[cause\]|Emitted '"
    r"|Node\.js v\d|Bun v\d|Location:|\(Use `node "
    r"|Last message|\s{0,12}--- End of |#\d{1,4} )"
)
_EXCEPTION_HEAD = re.compile(rf"(?:{_CLASS.pattern})|(?:{_ERROR_CLASS.pattern})")

_GO_FUNCTION = r"(?:[\w.-]{1,80}/){0,12}[\w-]{1,80}\.(?:\(\*?\w{1,80}\)\.)?[A-Za-z_][\w.]{0,120}\Z"
_GO_MORE = re.compile(
    r"goroutine \d|\[(?:signal|recovered|originating)|created by "
    r"|[\w./*()\[\]{}$~%@-]{1,300}\(.{0,4000}\)\Z|exit status \d"
    r"|runtime stack:|panic: |fatal error: "
    r"|\.\.\.additional frames|r[a-z0-9]{1,6} {1,8}0x|[cefgs][a-z]{1,5} {1,8}0x|runtime: |PC=0x|main\."
    r"|unexpected fault|-----|\.\.\. "
    rf"|{_GO_FUNCTION}"
)
_RUST_MORE = re.compile(
    r"note: |---> |#\d{1,4} |stack backtrace:|\s{1,8}\d{1,4}: |(?: ?left| ?right): |fatal runtime error: |thread '"
)
_PHP_MORE = re.compile(
    r"Stack trace:|\[?[Ss]tacktrace\]?:?\Z|coroutine \d|\[C\]|\d{1,4}\. .{1,1000} @ 0x|"
    r"in expression starting at |\"\}|#\d{1,4} |\{main\}|thrown in "
    r"|PHP {1,4}\d{1,4}\. |PHP Stack trace:|Next |Previous "
)
_RUBY_MORE = re.compile(r"(?:[\w@+./~<>-]{1,300}:\d{1,9}:in |from |[\w.:]{1,200} \()")
_FATAL_PYTHON_MORE = re.compile(
    r"Current thread|Thread 0x|Extension modules|Python runtime state|Traceback|<no Python frame>"
)
_ELIXIR_MORE = re.compile(
    r"\*\* \(|Last message|State:|\(\w{1,80} \d|Initial call|Ancestors|Function: |Args: |Messages:|Client "
)
_OCAML_MORE = re.compile(r"(?:Raised|Called|Re-raised) ")
_LUA_MORE = re.compile(r"stack traceback:|\[C\]")
_GO_STACK = re.compile(_GO_FUNCTION)
"""The first function of a stack trace printed by a logger such as zap."""
_STACK = re.compile(
    r"Stack trace:|-{3,8} (?:Native|JavaScript) stack ?trace|"
    r"\[stacktrace\]|stack backtrace:|Stacktrace:|stack traceback:|CallStack \(|#0 "
    r"|goroutine \d{1,9} \[|\[signal |runtime stack:|\*\* \(\w|(?:\w{1,80} ){0,3}[Bb]acktrace:"
)
"""The beginning of a stack trace below a line of a logger."""
_STACK_STATES = {"go": "go", "[s": "go", "ru": "go", "**": "elixir", "--": "native"}
"""The state of such a stack trace, by its first two characters; of others it is that of PHP."""

_MORE: dict[str, re.Pattern[str]] = {
    "go": _GO_MORE,
    "php": _PHP_MORE,
    "ruby": _RUBY_MORE,
    "fatal-python": _FATAL_PYTHON_MORE,
    "elixir": _ELIXIR_MORE,
    "ocaml": _OCAML_MORE,
    "lua": _LUA_MORE,
    "native": re.compile(
        r"what\(\):|\d{1,3}: (?:0x|\()|Aborted|Error termination|Backtrace for|raised |v hash: |terminate called|"
        r"=+\d{1,12}=+|SUMMARY: |#\d{1,4} |Shadow |AddressSanitizer|(?:READ|WRITE) of size"
    ),
    "jvm": re.compile(r"#"),
    "erlang": re.compile(r"(?!=\w{1,40} REPORT====)\s{1,40}|[\w ]{1,60}: |Error in process |\*\* |\{|\["),
    "erlang-info": re.compile(r"(?!=\w{1,40} REPORT====)\s{1,40}"),
    "perl": re.compile(r"BEGIN failed--|Compilation failed in "),
    "r": re.compile(r"Calls: |Execution halted|In addition: |Backtrace:"),
    "eyre": re.compile(r"Message: |Location: |Backtrace omitted|Run with |\s{1,8}━|\s{0,4}\d{1,4}: "),
    "zig": re.compile(r"[^\s:]{1,300}:\d{1,9}:\d{1,9}: 0x|\?\?\?:\?:\?: 0x"),
    "warning": re.compile(r"(?:Runtime|Resource)Warning: Enable tracemalloc"),
    "clojure": re.compile(r"Full report at:|/\S{1,400}\.edn\Z"),
    "stack": _STACK,
    "haskell": re.compile(r"HasCallStack backtrace:|CallStack \(|While handling "),
    "d": re.compile(r"-{16}\Z|[^\s:]{1,300}:[\d?]{1,9} \S|\S{1,400} \[0x"),
    "nim": re.compile(r"[^\s(]{1,300}\.nim\(\d|Error: unhandled |\[\["),
    "valgrind": re.compile(r"==\d{1,12}==(?: {2}|\s?\Z| Locks )"),
    "box-error": re.compile("[│╵]"),
    "box-warning": re.compile("[│╵]"),
    "gin": re.compile(r"/\S{1,400}:\d{1,9} \(0x"),
}
"""By state, patterns of the beginnings of unindented lines that belong to the dump."""

_GO_FATAL = (
    "fatal error: (?:all goroutines|concurrent map|runtime|unexpected|stack|out of memory|fault|sync|invalid|morestack"
    "|index|bad|malloc)"
)
_VALGRIND = (
    r"Invalid |Conditional jump |Use of uninit|Syscall param|Mismatched |Source and destination|Possible data race"
    r"|Jump to |Argument |ERROR SUMMARY: [1-9]"
    r"|[\d,]{1,15} (?:\([^)\n]{1,100}\) )?bytes in [\d,]{1,15} blocks are \w+ lost"
)
_STARTS: tuple[tuple[str, re.Pattern[str], DumpStart], ...] = tuple(
    (first, re.compile(pattern), DumpStart(state, level))
    for first, pattern, state, level in (
        ("T \t", _PYTHON_START.pattern, PYTHON, "ERROR"),
        ("╭", _BOX.pattern, BOXED, "ERROR"),
        (" ", r" panic: ", "go", "ERROR"),
        (" ", _SYNTAX_ERROR.pattern, PYTHON, "ERROR"),
        ("E", r"Error occurred during initialization of (?:VM|boot layer)\Z", "jvm-start", "CRITICAL"),
        ("E", r"Exception in thread |Exception ignored in", ANY_ERROR, None),
        ("E", r"Exception in callback ", "asyncio", None),
        ("-", r"--- Logging error ---\Z", "asyncio", "ERROR"),
        ("P", r"Process [\w-]{1,80}:\Z", "asyncio", None),
        ("mc", r"(?:multiprocessing\.pool|concurrent\.futures\.process)\._?RemoteTraceback: ?\Z", "asyncio", "ERROR"),
        ("E", r"Error in [\w.$:]{1,100}\(.{0,400}\) : ?", "r", "ERROR"),
        ("T", r"The application panicked \(crashed\)\.\Z", "eyre", "CRITICAL"),
        ("t", r"thread \d{1,12} panic: ", "zig", "CRITICAL"),
        ("#", r"#<Thread:0x[^\n]{1,400} terminated with exception ", "ruby", "ERROR"),
        ("=", r"=(?:INFO|PROGRESS|NOTICE|DEBUG) REPORT==== ", "erlang-info", "INFO"),
        ("T", r"Task exception was never retrieved", "asyncio", None),
        ("F", r"Fatal Python error: ", "fatal-python", "CRITICAL"),
        ("p", r"panic: |panic\(", "go", "CRITICAL"),
        ("f", _GO_FATAL, "go", "CRITICAL"),
        ("f", r"fatal runtime error: ", RUST_MESSAGE, "CRITICAL"),
        ("S", r"SIG[A-Z]{2,6}: [a-z]", "go", "CRITICAL"),
        ("g", r"goroutine \d{1,9} \[", "go", "ERROR"),
        ("=", r"={18}(?:={47})?\Z", RACE_RULE, None),
        (
            "t",
            r"thread '[^'\n]{0,200}'(?: \(\d{1,12}\))? panicked at [^'\"\n]{1,400}:\d{1,9}(?::\d{1,9})?:?\Z",
            RUST,
            "CRITICAL",
        ),
        (
            "t",
            r"thread '[^'\n]{0,200}'(?: \(\d{1,12}\))? (?:panicked at |has overflowed its stack)",
            RUST_MESSAGE,
            "CRITICAL",
        ),
        ("t", r"terminate called (?:after throwing|without an active)", "native", "CRITICAL"),
        ("U", r"Unhandled [Ee]xception:\Z", RUST, "CRITICAL"),
        ("U", r"Unhandled [Ee]xception[.:]|Unhandled exception\Z", JAVA_STACK, "CRITICAL"),
        ("U", r"Unhandled [A-Z][A-Z:-]{3,60} in thread ", "native", "CRITICAL"),
        ("U", r"Uncaught (?:Kotlin exception: )?(?:[\w.$]{1,200}(?:Error|Exception))\b", JAVA_STACK, "ERROR"),
        ("P", r"Process terminated\. ", JAVA_STACK, "CRITICAL"),
        ("S", r"Stack overflow\.\Z", JAVA_STACK, "CRITICAL"),
        ("F", r"Fatal error\. ", JAVA_STACK, "CRITICAL"),
        ("T", r"Terminating due to java\.lang\.OutOfMemoryError", JAVA_STACK, "CRITICAL"),
        ("#", r"# A fatal error has been detected by |# There is insufficient memory for the Java", "jvm", "CRITICAL"),
        ("#", r"#\Z", JVM_RULE, None),
        ("JFMASOND", _JUL.pattern, JUL, None),
        ("P", r"PHP (?:Fatal|Recoverable fatal|Core|Compile) error:", "php", "CRITICAL"),
        ("P", r"PHP Parse error:", "php", "ERROR"),
        ("P", r"PHP (?:Core |Compile |User )?[Ww]arning:", "php", "WARNING"),
        ("P", r"PHP (?:User )?[Dd]eprecated:", "php", "WARNING"),
        ("", r"[\w@+./~-]{1,300}\.(?:rb|ru|rake):\d{1,9}:in ['`].{1,4000}\([A-Z][\w:]{0,200}\)\Z", "ruby", "ERROR"),
        ("*", r"\*\* \((?:[A-Z][\w.]{0,200}|EXIT[^)\n]{0,200}|exit|throw)\) ", "elixir", "ERROR"),
        ("=", r"=(?:ERROR|CRASH|SUPERVISOR) REPORT==== ", "erlang", "ERROR"),
        ("=", r"=WARNING REPORT==== ", "erlang", "WARNING"),
        ("R", r"Runtime terminating during boot", "erlang", "CRITICAL"),
        ("E", r"(?:Execution|Syntax) error \([\w.]{1,100}\) ", "clojure", "ERROR"),
        ("S", r"Syntax error (?:\([\w.]{1,100}\) )?(?:compiling|reading|macroexpanding) ", "clojure", "ERROR"),
        ("*", r"\*\*\* stack smashing detected|\*\*\* buffer overflow detected", "native", "CRITICAL"),
        ("f", r"free\(\): |fatal: morestack", "native", "CRITICAL"),
        ("d", r"double free or corruption", "native", "CRITICAL"),
        ("c", r"corrupted (?:double-linked list|size vs\. prev_size)", "native", "CRITICAL"),
        ("r", r"realloc\(\): ", "native", "CRITICAL"),
        ("l", r"libc\+\+abi: terminating", "native", "CRITICAL"),
        ("p", r"pure virtual method called\Z", "native", "CRITICAL"),
        ("m", r"malloc\(\): |munmap_chunk\(\): |memory allocation of \d{1,20} bytes failed", "native", "CRITICAL"),
        ("S", r"Segmentation fault(?: \(core dumped\))?\Z", "native", "CRITICAL"),
        ("A", r"Aborted \(core dumped\)\Z", "native", "CRITICAL"),
        ("=", r"==\d{1,12}==\s?ERROR: ", "native", "ERROR"),
        ("C", r"CallStack \(from HasCallStack\):", "stack", "ERROR"),
        ("C", r"Caught: [\w.$]{1,200}(?:Exception|Error)\b", ANY_ERROR, "ERROR"),
        ("T", r"TSError: ", NODE_ERROR, "ERROR"),
        ("T", r"Traceback \(most recent call last\)\Z", "nim", "ERROR"),
        ("╷", "╷\\Z", BOX, None),
        ("A", r"At line \d{1,9} of file ", FORTRAN, None),
        ("P", r"Program received signal SIG", "native", "CRITICAL"),
        ("E", r"Execution of [^\n]{1,300} terminated by unhandled exception", "native", "ERROR"),
        ("r", r"raised [A-Z][\w.]{2,100} : ", "native", "ERROR"),
        ("V", r"V panic: ", "native", "CRITICAL"),
        ("=", r"==\d{1,12}== Process terminating ", "valgrind", "CRITICAL"),
        ("=", r"==\d{1,12}== Warning: ", "valgrind", "WARNING"),
        ("=", rf"==\d{{1,12}}== (?:{_VALGRIND})", "valgrind", "ERROR"),
    )
)


_Starts = list[tuple[re.Pattern[str], DumpStart]]


def _combined(starts: _Starts) -> tuple[re.Pattern[str], _Starts]:
    """Return one pattern for all STARTS, without groups, which take time although few lines match; and STARTS."""
    return re.compile("|".join(pattern.pattern for pattern, _ in starts)), starts


_BY_FIRST = {
    character: _combined([(pattern, start) for first, pattern, start in _STARTS if character in first])
    for character in {character for first, _, _ in _STARTS for character in first}
}
_RUBY_START = next((pattern, start) for first, pattern, start in _STARTS if not first)
_FILE_LINE = re.compile(r"(?:file://)?(?:/|\.{0,2}/|[A-Z]:\\|node:)[^\s:]{1,400}:\d{1,9}\Z")
_PYTHON_WARNING = re.compile(r"[^\s:]{1,400}:\d{1,9}: [A-Za-z]{0,60}Warning: ")
_NODE_WARNING = re.compile(r"\(node:\d{1,9}\) (?:\[\w{1,20}\] )?(?:\w{1,60}Warning|Warning): ")
_VM_WARNING = re.compile(r"[\w ()-]{1,60} VM warning: ")
_PERL = re.compile(
    r".{1,2000} at (?:[^\s]{1,300}\.(?:p[lm]|t|psgi|cgi)|-e) line \d{1,9}(?:, <\w{0,40}> (?:line|chunk) \d{1,9})?\.\Z"
)
_PERL_WARNINGS = re.compile(
    r"Use of uninit|Argument \"|Deep recursion|Odd number of|Useless use|Subroutine \w"
    r"|Name \"|Possible |Scalar value|Reference found|Unquoted|Use of "
    r"|\"?(?:my|our) |Wide character|substr outside|splice\(\) offset|print\w*\(\) on|readline\(\) on|isn't numeric"
)
_LUA = re.compile(r"lua[\w.-]{0,20}: [^\s:]{1,400}:\d{1,9}: ")
_DOTNET_HEAD = re.compile(r"(?:info|dbug|trce|warn|fail|crit): [\w.`+<>,\[\] -]{1,400}\[-?\d{1,9}\]\Z")
_SHELL = re.compile(
    r"[^\s:]{1,300}: line \d{1,9}: {1,8}\d{1,12} (?:(?P<killed>Killed|Terminated)|Segmentation fault|Aborted|Bus error"
    r"|Illegal instruction|Floating point exception|Trace/breakpoint trap)\b"
)
_DIAGNOSTIC = re.compile(r"[^\s:(]{1,300}[:(]\d{1,9}[:,]\d{1,9}(?:\):| -) (?:error|warning) ")
"""A diagnostic of TypeScript, which an error's message may consist of."""
_HASKELL = re.compile(r"[^\s:]{1,300}: (?:Uncaught exception \S|[^\s:]{1,300}\.hs:[\d(])")
_D = re.compile(r"[\w.]{3,200}@[^\s()]{1,300}\(\d{1,9}\): ")
_RAILS = re.compile(r"(?:[A-Z]\w{0,80}(?:::[A-Z]\w{0,80}){1,8}|[A-Z]\w{0,80}Error) \(.{1,4000}\):\Z")
_ASSERTION = re.compile(r"(?:.{0,400}: )?[^:\s]{1,200}:\d{1,9}: .{1,400}: Assertion [`'].{1,1000}' failed\.\Z")


def start_of(text: str) -> DumpStart | None:
    """Return the start of the dump that TEXT, which states no level, may begin, or None if it begins none."""
    first = text[:1]
    if (known := _BY_FIRST.get(first)) is not None and known[0].match(text) is not None:
        start = next(start for pattern, start in known[1] if pattern.match(text) is not None)
        return DumpStart(PYTHON_ENDED, "ERROR") if start.state == PYTHON and "Group" in text[:24] else start
    if first in "12[/.~nfC(b":
        if first in "12" and "http: panic serving" in text:
            return DumpStart("go", "ERROR")
        if first in "12[" and text.endswith(" panic recovered:"):
            return DumpStart("gin", "ERROR")
        if first in "/.~nfC" and _FILE_LINE.match(text):
            return DumpStart(NODE_FILE, None)
        if first == "(" and _NODE_WARNING.match(text):
            return DumpStart(JAVA_STACK, "WARNING")
        if first == "2" and " Rack app" in text[:60]:
            return DumpStart("ruby", "ERROR")
        if first in "/.b" and (shell := _SHELL.match(text)) is not None:
            return DumpStart("native", "ERROR" if shell["killed"] else "CRITICAL")
        if first in "/." and "error while loading shared libraries: " in text:
            return DumpStart("native", "ERROR")
    last = text[-1:]
    if last in "r:.)":
        if text.endswith(("] Unhandled Error", "] Unhandled error in Deferred:")):
            return DumpStart(ANY_ERROR, "ERROR")
        if text.endswith("):") and _RAILS.match(text):
            return DumpStart("ruby", "ERROR")
        if last == "." and " line " in text and _PERL.match(text):
            return DumpStart("perl", "WARNING" if _PERL_WARNINGS.match(text) or "isn't numeric" in text else "ERROR")
        if last == "." and "Assertion " in text and _ASSERTION.match(text):
            return DumpStart("native", "CRITICAL")
        if last == ")" and ":in " in text and _RUBY_START[0].match(text):
            return _RUBY_START[1]
    if "arning: " in text and (_PYTHON_WARNING.match(text) or _VM_WARNING.match(text)):
        return DumpStart("warning", "WARNING")
    if first == "l" and _LUA.match(text):
        return DumpStart("lua", "ERROR")
    space = text.find(" ", 0, 400)
    before = text[space - 1 : space]
    if before == "." and space < 7 and _JUL.match(text):
        return DumpStart(JUL, None)
    if before == ":":
        if "@" in text[:space] and _D.match(text):
            return DumpStart("d", "ERROR")
        if (".hs:" in text or "Uncaught" in text) and _HASKELL.match(text):
            return DumpStart("haskell", "ERROR")
    if space < 0 or before == ":" or text[space + 1 : space + 2] in ("[", "{"):
        name = text[:400] if space < 0 else text[:space]
        # An exception's name is one word, which a code in brackets may follow.
        if ("." in name or "Err" in name or "Exc" in name or "Thr" in name) and _EXCEPTION_HEAD.match(text, 0, 400):
            return DumpStart(JAVA_STACK, None)
    if ("rror" in text or "xception" in text) and _QUOTED.match(text):
        return DumpStart(QUOTED, None)
    if before == ":" and (first == "/" or first.islower()):
        return DumpStart(HEADLINE, None)
    if first in "123456789" and "| " in text[1:9] and EXCERPT_LINE.match(text):
        return DumpStart(EXCERPT, None)
    return None


def is_dotnet_head(text: str) -> bool:
    """Return whether TEXT is the first of the two lines of an entry by .NET's console logger."""
    return text[-1:] == "]" and text[0] in "idtwfc" and _DOTNET_HEAD.match(text) is not None


def continues(state: str, text: str) -> str | None:
    """Return the state after TEXT if it continues an entry in STATE, or None if its text does not show that."""
    if _PYTHON_START.match(text):
        begun = PYTHON_ENDED if "Group" in text[:24] else PYTHON
        return begun if state in (ANY_ERROR, PYTHON_CHAINED, "asyncio", "fatal-python") else None
    if text[:1] == "╭" and _BOX.match(text):
        return BOXED if state in (ANY_ERROR, "asyncio", PYTHON_CHAINED) else None
    if state in HELD:
        return confirmed(state, text)
    if state == INDENTED:
        return state if text[:6] == "      " else None
    if text[:1] in (" ", "\t", "\xa0"):
        if text.startswith(" * "):
            return None  # " * Running on http://…" belongs to no entry
        if state == ANY_ERROR and _INDENTED_LEVEL.match(text):
            return None
        return JAVA_STACK if state in (ANY_ERROR, NODE_ERROR) and _JAVA_MORE.match(text) else state
    if not text:
        return state
    if state == "race":
        return "race-ended" if text.startswith("=====") else state
    if state == PYTHON:
        # loguru marks the call in which the exception was caught.
        return PYTHON_ENDED if _PYTHON_END.match(text) else state if text.startswith('> File "') else None
    if state == BOXED:
        return BOXED if text[:1] in "│╭╰" else PYTHON_ENDED if _PYTHON_END.match(text) else None
    if state == PYTHON_ENDED:
        if text.startswith(_PYTHON_CHAINED):
            return PYTHON_CHAINED
        return state if text.startswith(_BELOW) else None
    if state == NODE:
        return NODE_ERROR
    if state == NODE_ERROR:
        if _DIAGNOSTIC.match(text):
            return NODE_ERROR
        return JAVA_STACK if _JAVA_MORE.match(text) or _JAVA_END.match(text) else None
    if state == RUST:
        return RUST_MESSAGE
    if state == RUST_MESSAGE:
        return state if _RUST_MORE.match(text) else None
    if state == JAVA_STACK:
        if _JAVA_MORE.match(text) or _JAVA_END.match(text):
            return state
        return None
    if state == "asyncio":
        return state if text.startswith(_ASYNCIO_MORE) else None
    if state == ANY_ERROR or state[:4] == "jul-":
        if _EXCEPTION_HEAD.match(text) or _JAVA_MORE.match(text):
            return JAVA_STACK
        if _GO_STACK.match(text):
            return "go"
        if _STACK.match(text):
            return "php" if text[:4] == "[sta" else _STACK_STATES.get(text[:2], "php")
        if _MORE["zig"].match(text):
            return "zig"
        return state if (":  " in text and _POSTGRESQL_MORE.match(text)) or text.startswith(_CAUSE) else None
    more = _MORE.get(state)
    return state if more is not None and more.match(text) else None


_CAUSE = (
    *("Caused by:", "Location:", "Stack:", "SUMMARY: ", "in expression starting at ", "! ", "│", "└", "╵"),
    *("Raised at ", "Raised by ", "Called from ", "Re-raised at "),
)
_ASYNCIO_MORE = ("future: ", "handle: ", "protocol: ", "transport: ", "task: ", "source_traceback: ", '"""')
_BELOW = ("[SQL: ", "[parameters: ", "(Background on this error at: ", "DETAIL:  ", "HINT:  ", "CONTEXT:  ", "LINE ",
          "Call stack:", "Message: ", "Arguments: ", '"""')  # fmt: skip
"""Lines that SQLAlchemy, psycopg and logging print below their messages, and multiprocessing around a traceback."""
_POSTGRESQL_MORE = re.compile(r"[\[\d<][^\n]{0,250}?[\s:|>,-](?:DETAIL|HINT|STATEMENT|CONTEXT|QUERY|LOCATION):  ")


def level_after(state: str) -> str:
    """Return the level of a dump in STATE, if its first line states none."""
    return _LEVELS.get(state, "ERROR")


_LEVELS = {"race": "WARNING", "race-ended": "WARNING", "jul-warning": "WARNING", "jul-info": "INFO", "jvm": "CRITICAL",
           "box-warning": "WARNING"}  # fmt: skip
