"""Commands in the sandbox by tests/system/exec_client.py are what they are by `scripts/sandbox exec`."""

import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system.booted import Sandbox, run, until
from tests.system.exec_client import run_in_sandbox

AS_ROOT = ["--root"]
CALLS: dict[str, tuple[list[str], list[str], str | None]] = {
    "all streams": ([], ["sh", "-c", "cat; echo wrong >&2; printf 'a\\r\\nb\\377'; exit 3"], "given\nto it"),
    "nothing to read": ([], ["cat"], None),
    "a signal": ([], ["sh", "-c", "kill -9 $$"], None),
    "its environment": ([], ["sh", "-c", "env | sort; id; pwd; cat /proc/self/cgroup; ulimit -a"], None),
    "its descriptors": ([], ["ls", "/proc/self/fd"], None),
    "signals that it ignores": ([], ["grep", "Sig...:", "/proc/self/status"], None),
    "root": (AS_ROOT, ["sh", "-c", "id; pwd; grep Cap /proc/self/status"], None),
    "a variable": (["--env", "A=b c"], ["printenv", "A"], None),
    "no such program": ([], ["no-such-program"], None),
    "no such account": (["--user", "nobody-here"], ["true"], None),
    "much": ([], ["head", "-c", "3000000", "/dev/zero"], None),
}


@pytest.mark.parametrize("options, command, stdin", CALLS.values(), ids=CALLS.keys())
def test_it_is_as_by_the_script(demo: Sandbox, options: list[str], command: list[str], stdin: str | None) -> None:
    script, *words = demo.command()
    words = [*words[:-1], *options, "--", *command]
    done = run([script, *words], 60, stdin)
    assert run_in_sandbox(words, stdin, 60) == (done.code, done.out, done.err)


def test_a_command_that_takes_too_long_is_killed(demo: Sandbox) -> None:
    seconds = f"9{secrets.randbelow(10**8)}"
    with pytest.raises(subprocess.TimeoutExpired):
        demo("sleep", seconds, timeout=2)
    until(lambda: demo("pgrep", "-f", f"^sleep {seconds}$", check=False).code == 1)


def test_several_at_once_do_not_wait_for_each_other(demo: Sandbox) -> None:
    """Three wait for what the fourth does."""
    mark = f"/tmp/{secrets.token_hex(4)}"
    with ThreadPoolExecutor(4) as pool:
        waits = f"echo $0; timeout 60 sh -c 'until [ -e {mark} ]; do sleep 0.1; done'; rm -f {mark}-$0"
        waiting = [pool.submit(demo, "sh", "-c", waits, str(number)) for number in range(3)]
        time.sleep(0.5)
        demo("touch", mark)
        assert [each.result().out for each in waiting] == ["0\n", "1\n", "2\n"]
    demo("rm", mark)
