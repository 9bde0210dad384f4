"""Scripts that the kernel can't execute are named before anything runs, with what to do."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from helmd.systemd.scripts import script_fault, stays_in_shell


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#!/bin/sh\necho\n", ""),
        (b"#!/bin/sh -eu\n# \xc3\xa4\r\n", ""),
        (b"#! /usr/bin/env python3\n", ""),
        (b"\x7fELF\x02\x01\x01\0\0", ""),
        (b"MZ\x90\0\x03", ""),
        (b"#!/bin/sh\r\necho\r\n", "has the line ends of Windows"),
        (b"#!/usr/bin/env python3\r\n", "has the line ends of Windows"),
        (b"\xef\xbb\xbf#!/bin/sh\necho\n", "begins with a byte order mark"),
        (b"echo hello\n", "needs a first line that names its interpreter"),
        (b"# a comment\nimport os\n", "needs a first line that names its interpreter"),
        (b"#!/no/such/python\n", "names the interpreter /no/such/python, which does not exist"),
        (b"", "is empty"),
    ],
)
def test_what_a_script_lacks(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "run it"
    path.write_bytes(content)
    found = script_fault(path, searched=False)
    assert said in found and bool(said) == bool(found)
    if ": sed " in found:
        assert found.endswith(f"'{path}'"), "the command can be copied"


def test_what_systemd_cat_has_a_shell_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("echo hello\n")
    assert script_fault(path, searched=False) and not script_fault(path, searched=True)
    path.write_text("#!/bin/sh\r\n")
    assert script_fault(path, searched=True)


@pytest.mark.parametrize(
    ("words", "text", "stays"),
    [
        (["RUN"], "#!/bin/sh\nexport A=1\npython3 serve.py\n", True),
        (["RUN", "--all"], "#!/usr/bin/env bash\nnode server.js\n", True),
        (["RUN"], "#!/usr/bin/bash -eu\n# exec is not used\nnode server.js\n", True),
        (["RUN"], "#!/bin/sh\nexport A=1\nexec python3 serve.py\n", False),
        (["RUN"], "#!/bin/sh\nif true; then exec a; fi\n", False),
        (["RUN"], "#!/usr/bin/python3\nimport os\n", False),
        (["RUN"], "\x7fELF", False),
        (["sh", "run"], "export A=1\npython3 serve.py\n", True),
        (["/bin/bash", "-eu", "run", "now"], "exec python3 serve.py\n", False),
        (["sh", "-c", "./migrate && ./serve"], "", True),
        (["bash", "-lc", "cd /srv; ./serve"], "", True),
        (["sh", "-c", "./migrate && exec ./serve"], "", False),
        (["sh", "-c", "./serve --port 8000"], "", False),
        (["sleep", "100"], "", False),
        (["/no/such/program"], "", False),
        (["sh"], "", False),
    ],
)
def test_whether_a_shell_stays(tmp_path: Path, words: Sequence[str], text: str, stays: bool) -> None:
    (tmp_path / "run").write_text(text)
    given = [str(tmp_path / "run") if word == "RUN" else word for word in words]
    assert stays_in_shell(given, tmp_path) == stays
