"""Whatever text comes from outside, a terminal that shows helmctl's output obeys nothing in it."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.cli import output
from helmd.cli.main import print_error
from helmd.model.errors import ConfigurationError, Fault, HelmError, UsageError
from helmd.model.field_error import FieldError
from helmd.model.printable import UNSEEN, printable, without_unseen
from helmd.web.pages.assets import STATIC

TOP = Path(__file__).resolve().parents[2]
HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202etxt.exe\r\b\x7f\u2028\ud800"
"""A title, a colour, a C1 control sequence, a change of direction, and characters that move the cursor."""
PAINT = re.compile(r"\x1b\[\d*m")

WRITES = re.compile(r"print|click\.(echo|secho|style|echo_via_pager)|sys\.std(out|err)\.write(lines)?")
WRITERS = {"output.py", "logs/format.py"}
"""What may write; everything else in helmd/cli goes through the first."""


def harmless(shown: str) -> bool:
    """Return whether a terminal only shows SHOWN: nothing but printable characters, tabs and line breaks."""
    return all(c.isprintable() or c in "\t\n" for c in shown)


def test_commands_print_by_the_output_module_only() -> None:
    wrong = []
    for path in sorted((TOP / "helmd/cli").rglob("*.py")):
        name = str(path.relative_to(TOP / "helmd/cli"))
        for node in ast.walk(ast.parse(path.read_text())):
            words = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            writes = re.fullmatch(
                r"print|click\.(echo|secho|style|echo_via_pager)|sys\.std(out|err)\.write(lines)?", words
            )
            if writes and name not in WRITERS:
                wrong.append(f"{name}:{getattr(node, 'lineno', 0)} calls {words}")
    assert not wrong, "\n".join(wrong)


@given(st.text())
def test_a_line_is_one_line_and_harmless(text: str) -> None:
    assert harmless(output.render_line([text], colour=False)) and "\n" not in output.render_line([text], colour=False)
    painted = output.render_line([output.Painted(text, "red"), text], colour=True)
    assert harmless(PAINT.sub("", painted)) and len(PAINT.findall(painted)) == 2


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_ordinary_text_is_as_it_is(text: str) -> None:
    assert output.render_line([text], colour=False) == text


def test_what_is_not_printable_is_written_out() -> None:
    assert printable(HOSTILE) == (r"\x1b]0;owned\x07\x1b[31mred\x9b2J\u202etxt.exe\x0d\x08\x7f\u2028\ud800")
    assert printable("\U000e0001") == r"\U000e0001"
    assert printable("Überprüfung ✓ 漢字\t1") == "Überprüfung ✓ 漢字\t1"


def test_pages_write_out_the_same_in_templates_and_scripts() -> None:
    """What a page writes out, the command line does; tests/system/test_page_errors.py has it done by a browser."""
    script = re.search(r"export const UNSEEN =\s*/(\[.*\])/gu;", (STATIC / "dom.js").read_text())
    assert script is not None
    of_script = re.compile(re.sub(r"\\u\{(\w+)\}", lambda found: f"\\U{int(found[1], 16):08x}", script[1]))
    characters = [chr(number) for number in range(sys.maxunicode + 1)]
    unseen = [each for each in characters if UNSEEN.match(each)]
    assert [each for each in characters if of_script.match(each)] == unseen
    assert not any(each.isprintable() for each in unseen)
    for each in (*"\t\n\N{NO-BREAK SPACE}\N{ZERO WIDTH JOINER}é漢", "\N{VARIATION SELECTOR-16}"):
        assert without_unseen(each) == each
    assert without_unseen(f"a{HOSTILE}b") == f"a{printable(HOSTILE)}b"


def test_everything_that_prints(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_line(HOSTILE)
    output.print_message(output.Painted(HOSTILE, "red"), HOSTILE)
    output.print_text(f"one\n{HOSTILE}\n")
    output.print_progress(HOSTILE, last=False)
    output.print_json({HOSTILE: [HOSTILE]})
    for parts in output.table(("A", HOSTILE), [(HOSTILE, "x"), ("failed", HOSTILE)], state=0):
        output.print_line(*parts)
    print_error(HelmError(HOSTILE, hint=f"{HOSTILE}\nsecond", lines=[HOSTILE]))
    print_error(ConfigurationError([Fault(HOSTILE, 1, HOSTILE, HOSTILE)]))
    print_error(UsageError(HOSTILE, errors=[FieldError(HOSTILE, HOSTILE, "type")] * 2))
    shown = capsys.readouterr()
    assert harmless(shown.out) and harmless(shown.err)


def test_all_faults_of_a_request_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence has the first, and how many there are."""
    errors = [FieldError("#/set/port", "must be a number", "setting"), FieldError("#/set/x", "is not known", "setting")]
    print_error(
        UsageError("set/port: must be a number (and 2 more)", errors=[*errors, FieldError("#", "a:3: odd", "x")])
    )
    assert capsys.readouterr().err.splitlines()[1:] == ["  set/x: is not known", "  a:3: odd"]


def test_json_keeps_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json_line({HOSTILE: HOSTILE})
    shown = capsys.readouterr().out
    assert harmless(shown) and json.loads(shown) == {HOSTILE: HOSTILE}


def test_a_table_is_aligned_by_what_is_shown() -> None:
    lines = output.table(("NAME", "STATE"), [("a\x1b", "failed"), ("b", "stopped")], state=1)
    plain = [output.render_line(parts, colour=False) for parts in lines]
    assert plain == ["NAME   STATE", r"a\x1b  failed", "b      stopped"]
    assert PAINT.findall(output.render_line(lines[1], colour=True)) == ["\x1b[31m", "\x1b[0m"]


@pytest.mark.parametrize("words", [["x" + HOSTILE[:-1]], ["status", f"--{HOSTILE[:-1]}"], ["logs", "-n", HOSTILE[:-1]]])
def test_a_usage_error_repeats_no_control_character(words: list[str]) -> None:
    command = [sys.executable, str(TOP / "helmctl.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", timeout=60)
    assert done.returncode == 2 and "red" in done.stderr
    assert harmless(done.stdout + done.stderr)


def test_an_error_in_helm_itself_is_harmless() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(TOP)!r})\n"
        "from helmd.cli import main\n"
        f"def fail(*words, **more): raise LookupError({HOSTILE[:-1]!r})\n"
        "main.helmctl.main = fail\n"
        "main.run()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "LookupError: " in done.stderr and harmless(done.stderr)


@pytest.mark.parametrize(
    ("word", "streams", "code", "said"),
    [
        ("version", ">&-", 0, ""),
        ("version", "<&- >&- 2>&-", 0, ""),
        ("version", ">/dev/full", 1, "error: No space left on device\n"),
        ("vresion", "2>&-", 2, ""),
        ("vresion", "2>/dev/full", 2, ""),
    ],
)
def test_streams_that_cannot_be_written_change_no_exit_code(word: str, streams: str, code: int, said: str) -> None:
    """Except for output that is lost, which is a failure. Python's own exit code for that would be 120."""
    command = ["sh", "-c", f'"$@" {streams}', "sh", sys.executable, str(TOP / "helmctl.py"), word]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize(("word", "stream"), [("version", "stdout"), ("vresion", "stderr")])
def test_a_reader_that_is_gone_ends_it_as_sigpipe_does(word: str, stream: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    out, errors = (writer, subprocess.PIPE) if stream == "stdout" else (subprocess.PIPE, writer)
    command = [sys.executable, str(TOP / "helmctl.py"), word]
    try:
        done = subprocess.run(command, stdout=out, stderr=errors, text=True, timeout=60)
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout or "", done.stderr or "") == (141, "", "")
