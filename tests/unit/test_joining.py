"""Which lines belong together, and that none is lost on the way."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helmd.model.logs.entry import MESSAGE_LIMIT
from helmd.model.logs.parsing.multiline import MOST_BYTES, MOST_LINES, MOST_OPEN, JoinedEntry, Joiner, Key, SplitLine

KEY: Key = ("core", 7, "s1")
OTHER: Key = ("nexus", 8, "s2")


def put(joiner: Joiner[str], key: Key, text: str, level: str = "INFO", when: int = 0) -> list[JoinedEntry[str]]:
    """Add one line, as the ingest does; the payload is the line's own text."""
    return [] if joiner.add(key, text, when) else joiner.push(key, text, level, text, when)


def shown(joined: JoinedEntry[str]) -> str:
    return joined.payload + joined.more


def entries(lines: Sequence[str], levels: Sequence[str] = ()) -> list[str]:
    joiner: Joiner[str] = Joiner()
    done = []
    for number, line in enumerate(lines):
        level = levels[number] if number < len(levels) else "INFO"
        done += put(joiner, KEY, line, level)
    return [shown(joined) for joined in [*done, *joiner.expire(1)]]


TRACEBACK = """\
Traceback (most recent call last):
  File "/app/run.py", line 3, in <module>
    main()
    ^^^^^^
  File "/app/run.py", line 2, in main
    raise ValueError("bad: worse")
ValueError: bad: worse"""

CHAINED = (
    TRACEBACK
    + """

During handling of the above exception, another exception occurred:

"""
    + TRACEBACK.replace("ValueError: bad: worse", "app.errors.Broken")
    + """

The above exception was the direct cause of the following exception:

"""
    + TRACEBACK
)

WITHOUT_BLANKS = "\n".join(line for line in CHAINED.split("\n") if line)
"""As journald gives it, which takes no empty lines from a stream."""

GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "<stdin>", line 1, in <module>
  | ExceptionGroup: several (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "x.py", line 1, in f
    | ValueError: 1
    +---------------- 2 ----------------
    | ValueError: 2
    +------------------------------------"""

JAVA = """\
java.lang.IllegalStateException: cannot start
\tat org.keycloak.Main.run(Main.java:17)
\tat java.base/java.lang.Thread.run(Thread.java:840)
\tSuppressed: java.io.IOException: closed
\t\tat org.keycloak.Main.close(Main.java:30)
Caused by: org.hibernate.HibernateException: no database
\tat org.hibernate.Session.open(Session.java:5)
\t... 23 more"""

SQLALCHEMY = """\
Traceback (most recent call last):
  File "x.py", line 1, in f
sqlalchemy.exc.IntegrityError: (psycopg.errors.UniqueViolation) duplicate key
DETAIL:  Key (id)=(1) already exists.
[SQL: INSERT INTO t VALUES (1)]
(Background on this error at: https://sqlalche.me/e/20/gkpj)"""

POSTGRESQL = """\
[12] helm@helm ERROR:  duplicate key value violates unique constraint "t_pkey"
[12] helm@helm DETAIL:  Key (id)=(1) already exists.
[12] helm@helm STATEMENT:  INSERT INTO t
\tVALUES (1)"""


@pytest.mark.parametrize("block", [TRACEBACK, CHAINED, WITHOUT_BLANKS, GROUP, JAVA, SQLALCHEMY], ids=lambda b: b[:20])
def test_a_traceback_of_its_own(block: str) -> None:
    """Between ordinary lines of the same writer, as one entry at ERROR."""
    joiner: Joiner[str] = Joiner()
    done = [joined for line in ["before", *block.split("\n"), "after"] for joined in put(joiner, KEY, line)]
    assert [shown(joined) for joined in done] == ["before", block, "after"]
    assert [joined.traceback for joined in done] == [False, True, False]
    assert [joined.lines for joined in done] == [1, block.count("\n") + 1, 1]


@pytest.mark.parametrize("block", [TRACEBACK, CHAINED, WITHOUT_BLANKS, GROUP, JAVA, SQLALCHEMY], ids=lambda b: b[:20])
def test_a_traceback_below_an_error(block: str) -> None:
    lines = ["ERROR:app:it failed", *block.split("\n"), "INFO:app:on we go"]
    assert entries(lines, ["ERROR"]) == ["ERROR:app:it failed\n" + block, "INFO:app:on we go"]


def test_postgresql() -> None:
    assert entries([*POSTGRESQL.split("\n"), "[12] LOG:  done"], ["ERROR"]) == [POSTGRESQL, "[12] LOG:  done"]


@pytest.mark.parametrize("first", ["Exception in thread Thread-1 (run):", "Exception ignored in: <function f at 0x7f>"])
def test_a_thread_that_dies(first: str) -> None:
    assert entries([first, *TRACEBACK.split("\n"), "after"]) == [f"{first}\n{TRACEBACK}", "after"]


@pytest.mark.parametrize(
    "line",
    [
        "INFO:werkzeug:127.0.0.1 - -",
        "WARNING: Neo4j not configured",
        "ERROR: another",
        '{"level": "INFO"}',
        " * Running on http://127.0.0.1:5000",
        "Traceback (most recent call last):",
        "some words here",
        '127.0.0.1 - - [23/Nov/2026 06:10:38] "GET / HTTP/1.1" 200 -',
    ],
)
def test_what_goes_on_no_traceback(line: str) -> None:
    frames = TRACEBACK.split("\n")[:3]
    assert entries([*frames, line]) == ["\n".join(frames), line]
    assert entries([*TRACEBACK.split("\n"), line]) == [TRACEBACK, line]


def test_ordinary_lines_pass_at_once() -> None:
    joiner: Joiner[str] = Joiner()
    for line in [
        "one",
        "  indented",
        "\tat nothing.Known(X.java:1)",
        "ValueError was raised",
        "",
        "org.quartz started",
        " * x",
    ]:
        assert put(joiner, KEY, line) == [JoinedEntry(line, "", 1, False)]
    assert len(joiner) == 0


def test_a_complete_line_is_not_held() -> None:
    joiner: Joiner[str] = Joiner()
    assert joiner.push(KEY, "{}", "ERROR", "{}", 0, complete=True) == [JoinedEntry("{}", "", 1, False)]
    assert not joiner.add(KEY, "  x", 0)


@pytest.mark.parametrize("start, repeated", [("[1] ", "@"), ("", "a."), ("", "_"), ("", " "), ("a.A", "a")])
def test_hostile_lines_take_no_time(start: str, repeated: str) -> None:
    """Patterns that try all ways would not come back from these."""
    text = start + repeated * (10**6 // len(repeated))
    for begin in ("ERROR x", "Traceback (most recent call last):", "java.lang.Error: x"):
        assert "".join(entries([begin, text], ["ERROR"])).replace("\n", "") == begin + text


def test_two_errors_in_a_row() -> None:
    assert entries(["ERROR a", " more", "ERROR b"], ["ERROR", "INFO", "ERROR"]) == ["ERROR a\n more", "ERROR b"]


def test_two_stack_traces_in_a_row() -> None:
    assert entries([*JAVA.split("\n"), *JAVA.split("\n")]) == [JAVA, JAVA]


def test_an_error_that_is_followed_by_nothing_is_no_traceback() -> None:
    joiner: Joiner[str] = Joiner()
    for line in ("java.lang.Error: x", "Exception in thread nobody"):
        assert put(joiner, KEY, line) == []
        assert joiner.expire(1) == [JoinedEntry(line, "", 1, False)]


def test_others_are_not_held_back() -> None:
    joiner: Joiner[str] = Joiner()
    assert put(joiner, KEY, "ERROR x", "ERROR") == []
    assert put(joiner, OTHER, "  indented") == [JoinedEntry("  indented", "", 1, False)]
    assert put(joiner, ("core", 7, "s2"), "  indented") == [JoinedEntry("  indented", "", 1, False)]
    assert put(joiner, KEY, "  mine") == []
    assert joiner.expire(1) == [JoinedEntry("ERROR x", "\n  mine", 2, False)]


def test_expiry_counts_from_the_last_line() -> None:
    joiner: Joiner[str] = Joiner()
    put(joiner, KEY, "ERROR x", "ERROR", when=100)
    put(joiner, KEY, "  more", when=200)
    put(joiner, OTHER, "ERROR y", "ERROR", when=150)
    assert [shown(joined) for joined in joiner.expire(200)] == ["ERROR y"]
    assert joiner.expire(200) == []
    assert [shown(joined) for joined in joiner.expire(201)] == ["ERROR x\n  more"]


def test_what_is_in_the_middle_is_waited_for_longer() -> None:
    joiner: Joiner[str] = Joiner()
    for text in ("Traceback (most recent call last):", '  File "x.py", line 1'):
        put(joiner, KEY, text, "ERROR", when=100)
    put(joiner, OTHER, "ERROR y", "ERROR", when=100)
    assert [shown(joined) for joined in joiner.expire(200, 100)] == ["ERROR y"]
    put(joiner, KEY, "ValueError: x", when=300)
    assert [joined.lines for joined in joiner.expire(400, 100)] == [3]


def test_too_many_lines_go_on_in_a_second_entry() -> None:
    joiner: Joiner[str] = Joiner()
    lines = ["Traceback (most recent call last):", *(f"  frame {n}" for n in range(MOST_LINES + 9)), "ValueError: x"]
    done = [joined for line in lines for joined in put(joiner, KEY, line)] + joiner.expire(1)
    assert [joined.lines for joined in done] == [MOST_LINES, 11]
    assert all(joined.traceback for joined in done)
    assert "\n".join(map(shown, done)).split("\n") == lines


def test_an_entry_is_at_most_a_mebibyte() -> None:
    lines = ["ERROR x", *(" " + "é" * 300_000 for _ in range(4))]
    done = entries(lines, ["ERROR"])
    assert len(done) > 1
    assert all(len(text.encode()) <= MESSAGE_LIMIT for text in done)
    assert "\n".join(done) == "\n".join(lines)


def test_the_oldest_is_let_go_when_too_much_is_open() -> None:
    joiner: Joiner[str] = Joiner()
    done = [joined for n in range(MOST_OPEN + 3) for joined in put(joiner, ("x", n, ""), f"ERROR {n}", "ERROR")]
    assert [shown(joined) for joined in done] == ["ERROR 0", "ERROR 1", "ERROR 2"]
    assert len(joiner) == MOST_OPEN
    large = "E" * MESSAGE_LIMIT
    done = [joined for n in range(9) for joined in put(joiner, ("y", n, ""), large, "ERROR")]
    assert len(joiner) == MOST_BYTES // MESSAGE_LIMIT
    assert shown(done[-1]) == large


def test_all_that_is_open_is_bounded_however_it_grows() -> None:
    joiner: Joiner[str] = Joiner()
    for n in range(40):
        put(joiner, ("x", n, ""), "ERROR", "ERROR")
    for _ in range(9):
        for n in range(40):
            put(joiner, ("x", n, ""), " " * 100_000)
    held = joiner.dump(str)["open"]
    assert sum(len(line) for entry in held for line in entry[5]) <= MOST_BYTES


def parts(joiner: Joiner[str], pieces: Sequence[tuple[bytes, str]]) -> list[SplitLine[str]]:
    return [whole for n, (raw, why) in enumerate(pieces) for whole in joiner.part(KEY, raw, why, f"p{n}", n)]


def test_a_split_line() -> None:
    joiner: Joiner[str] = Joiner()
    cut_through = "é".encode()
    assert parts(joiner, [(b"a" + cut_through[:1], "line-max"), (cut_through[1:] + b"b", "line-max")]) == []
    assert KEY in joiner.splits and OTHER not in joiner.splits
    assert parts(joiner, [(b"c", "")]) == [SplitLine("aébc".encode(), "p0", 3, False)]
    assert KEY not in joiner.splits


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([(b"a", "nul"), (b"b", "")], [b"a\0b"]),
        ([(b"a", "line-max"), (b"b", "eof")], [b"ab"]),
        ([(b"a", "eof"), (b"b", "")], [b"a", b"b"]),
        ([(b"a", "pid-change"), (b"b", "")], [b"a", b"b"]),
        ([(b"a", "unheard-of"), (b"b", "")], [b"a", b"b"]),
        ([(b"a", ""), (b"b", "")], [b"a", b"b"]),
    ],
)
def test_reasons_of_a_split(pieces: list[tuple[bytes, str]], expected: list[bytes]) -> None:
    assert [whole.raw for whole in parts(Joiner(), pieces)] == expected


def test_a_line_without_end() -> None:
    joiner: Joiner[str] = Joiner()
    size = 48 * 1024
    done = parts(joiner, [(b"x" * size, "line-max")] * 50)
    done += parts(joiner, [(b"y", "")])
    assert [whole.continues for whole in done] == [True, True, False]
    assert all(len(whole.raw) <= MESSAGE_LIMIT for whole in done)
    assert b"".join(whole.raw for whole in done) == b"x" * size * 50 + b"y"


def test_a_line_of_which_no_more_comes() -> None:
    joiner: Joiner[str] = Joiner()
    joiner.part(KEY, b"half", "line-max", "p", 5)
    assert joiner.expire_parts(5) == []
    assert joiner.expire_parts(6) == [SplitLine(b"half", "p", 1, True)]
    assert len(joiner) == 0


def test_too_many_split_lines() -> None:
    joiner: Joiner[str] = Joiner()
    done = [w for n in range(MOST_OPEN + 1) for w in joiner.part(("x", n, ""), b"a", "line-max", str(n), 0)]
    assert done == [SplitLine(b"a", "0", 1, True)]


@pytest.mark.parametrize(
    "state", [{}, {"open": [], "splits": None}, {"open": [[1]], "splits": []}, {"open": [["k"] * 7], "splits": []}]
)
def test_a_state_that_is_none(state: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Joiner.restore(state, str)


BLOCKS = [TRACEBACK, CHAINED, GROUP, JAVA, POSTGRESQL, SQLALCHEMY]
LINES = st.one_of(
    st.sampled_from(sorted({line for block in BLOCKS for line in block.split("\n")})),
    st.sampled_from(["ERROR x", "INFO y", "Exception in thread a", "\tat a.b(C.java:1)", " * x", ""]),
    st.text(st.characters(blacklist_characters="\n", blacklist_categories=("Cs",)), max_size=20),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([KEY, OTHER]),
        LINES,
        st.sampled_from(["INFO", "ERROR"]),
        st.sampled_from(["", "", "save", "age"]),
    ),
    max_size=60,
)


def again(joiner: Joiner[str]) -> Joiner[str]:
    """Return the joiner as restored after a restart."""
    return Joiner.restore(json.loads(json.dumps(joiner.dump(str))), str)


@given(STEPS)
@settings(max_examples=300)
def test_no_line_is_lost_or_doubled_or_out_of_order(steps: list[tuple[Key, str, str, str]]) -> None:
    joiner: Joiner[str] = Joiner()
    given_lines: dict[str, list[str]] = {"core": [], "nexus": []}
    done: list[JoinedEntry[str]] = []
    for when, (key, text, level, then) in enumerate(steps):
        text = f"{text}"
        given_lines[key[0]].append(text)
        payload = f"{key[0]} {text}"
        if not joiner.add(key, text, when):
            done += joiner.push(key, text, level, payload, when)
        if then == "save":
            joiner = again(joiner)
        elif then == "age":
            done += joiner.expire(when - 2)
    done += joiner.expire(len(steps) + 1)
    assert len(joiner) == 0
    for name, lines in given_lines.items():
        mine = [joined for joined in done if joined.payload.partition(" ")[0] == name]
        assert "\n".join(shown(joined).partition(" ")[2] for joined in mine) == "\n".join(lines)
        assert sum(joined.lines for joined in mine) == len(lines)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([KEY, OTHER]),
            st.binary(max_size=30).filter(lambda raw: b"\0" not in raw),
            st.sampled_from(["", "line-max", "nul", "eof"]),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_no_part_is_lost(steps: list[tuple[Key, bytes, str, bool]]) -> None:
    joiner: Joiner[str] = Joiner()
    came: dict[str, bytes] = {"core": b"", "nexus": b""}
    went: dict[str, bytes] = {"core": b"", "nexus": b""}
    done: list[SplitLine[str]] = []
    for key, raw, why, save in steps:
        came[key[0]] += raw + (b"\0" if why == "nul" else b"")
        done += joiner.part(key, raw, why, key[0], 0)
        joiner = again(joiner) if save else joiner
    for whole in [*done, *joiner.expire_parts(1)]:
        went[whole.payload] += whole.raw
    assert went == came
    assert sum(whole.parts for whole in done) <= len(steps)
