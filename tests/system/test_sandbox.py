"""`scripts/sandbox` itself, for real: it boots a Debian, loses and keeps what it should, and leaves nothing behind.

Needs root. The sandboxes made here have names and a state directory of their own, so they disturb nobody's; the base
is the shared, cached one.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.free_ports import free_port
from tests.waiting import until, until_none

SANDBOX = Path(__file__).resolve().parents[2] / "scripts" / "sandbox"
STATE = Path("/var/lib/hivematrix-sandbox-test")
ONE, TWO, THREE = "test-sandbox-one", "test-sandbox-two", "test-sandbox-three"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
SERVE = """
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 5004, Listen => 5) or die $!;
system("systemd-notify", "--ready");
while (my $client = $server->accept) {
    sysread($client, my $request, 4096);
    print $client "HTTP/1.0 200 OK\\r\\n\\r\\nfrom $ARGV[0]";
    close $client;
}
"""
ENVIRONMENT = {**os.environ, "HIVEMATRIX_SANDBOX_STATE": str(STATE)}
CHUNK, CHUNKS = 64, 96
HOG = f"""
$| = 1;
for my $n (1 .. {CHUNKS}) {{ push @kept, "x" x (({CHUNK} << 20) + $n); print "$n\\n" }}
"""
"""Takes 6 GiB, 64 MiB at a time, and prints each."""
MEMORY, TASKS = 512, 300
"""MiB, and processes with threads, of a sandbox that is to be bounded."""
MOST_FORKED = 2000
BOMB = f"ulimit -u {MOST_FORKED}; b() {{ b | b & }}; b; sleep 60"
"""A fork bomb. Its own limit protects this machine should the sandbox's fail."""


def sandbox(*words: str, name: str = ONE, stdin: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run scripts/sandbox COMMAND --name NAME …"""
    command = [str(SANDBOX), words[0], "--name", name, *words[1:]]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    if check:
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def inside(script: str, *options: str, name: str = ONE) -> str:
    """What a shell script prints inside, which must succeed."""
    return sandbox("exec", *options, "--", "sh", "-euc", script, name=name).stdout


def traces(name: str) -> set[str]:
    """Everything on this machine that belongs to the sandbox: files, cgroups, loop devices, processes, mounts."""
    directory, group = str(STATE / name), f"hivematrix-sandbox-{name}"
    found = {f"file {path}" for path in (STATE / name, STATE / f".{name}.lock") if path.exists()}
    hierarchies = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
    found |= {f"cgroup {top / group}" for top in hierarchies if (top / group).exists()}
    found |= {f"nspawn's {path}" for path in Path("/run/systemd").glob(f"nspawn/*/{name}*")}
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if backing.read_text().startswith(f"{directory}/"):
                found.add(f"loop device {backing.parts[3]}")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"{directory}/" in words or f"/{group}/" in (process / "cgroup").read_text():
                found.add(f"process {process.name} {words[:100]}")
            if f"{directory}/" in (process / "mounts").read_text():
                found.add(f"mount in the namespace of process {process.name}")
    return found


def assert_gone(*names: str) -> None:
    """What was killed disappears from /proc shortly, not at once."""
    until_none(lambda: sorted(set().union(*(traces(name) for name in names))), pause=0.05)


@pytest.fixture(scope="module", autouse=True)
def base() -> Iterator[None]:
    """The cached base, and no trace of these sandboxes before or after."""
    if os.geteuid() != 0:
        pytest.fail("these tests boot containers: run them as root")
    subprocess.run([str(SANDBOX), "create"], check=True, capture_output=True, env=ENVIRONMENT, timeout=600)
    subprocess.run([str(SANDBOX), "down", "--all"], check=True, capture_output=True, env=ENVIRONMENT)
    yield
    subprocess.run([str(SANDBOX), "down", "--all"], check=True, capture_output=True, env=ENVIRONMENT)
    assert_gone(ONE, TWO, THREE)
    assert not STATE.exists()


@pytest.fixture(scope="module")
def one(base: None) -> str:
    sandbox("up")
    return ONE


def test_up_is_complete_when_it_returns(one: str) -> None:
    assert inside("systemctl is-system-running", "--root").strip() == "running"
    assert inside("systemctl --user is-system-running").strip() == "running"
    assert inside("cat /proc/1/comm").strip() == "systemd"
    assert "systemd-journal" in inside("id -Gn").split()
    assert sandbox("up").stderr.strip().endswith("is already up")
    assert sandbox("status").stdout.splitlines()[1].split() == ["state:", "up"]


def test_exec_passes_stdin_output_and_status(one: str) -> None:
    done = sandbox("exec", "--", "sh", "-c", "cat; echo aside >&2; exit 7", stdin="to and fro\n", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("to and fro\n", "aside\n", 7)
    assert sandbox("exec", "--", "sh", "-c", "kill -TERM $$", check=False).returncode == 128 + signal.SIGTERM
    assert sandbox("exec", "--", "no-such-command", check=False).returncode == 127
    assert inside("printf '%s|' \"$0\" '--name' '--'") == "sh|--name|--|"


def test_exec_in_a_clean_environment_of_the_account(one: str) -> None:
    ENVIRONMENT["SECRET_OF_THE_HOST"] = "leaks"
    try:
        seen = dict(line.split("=", 1) for line in inside("env").splitlines())
    finally:
        del ENVIRONMENT["SECRET_OF_THE_HOST"]
    assert "SECRET_OF_THE_HOST" not in seen
    assert (seen["HOME"], seen["USER"], seen["LANG"]) == ("/home/hive", "hive", "C.UTF-8")
    assert seen["XDG_RUNTIME_DIR"] == "/run/user/1000"
    assert inside("id -un; pwd") == "hive\n/home/hive\n"
    assert inside("id -un; pwd", "--root") == "root\n/root\n"
    assert sandbox("exec", "--env", "GIVEN=a=b", "--", "printenv", "GIVEN").stdout == "a=b\n"


def test_exec_reaches_the_user_bus(one: str) -> None:
    inside("systemd-run --user --quiet --wait sh -c 'echo from-a-user-unit'")
    until(lambda: "from-a-user-unit" in inside("journalctl --user --no-pager -o cat"))
    assert inside("test -d /var/log/journal/$(cat /etc/machine-id) && echo persistent") == "persistent\n"


def with_signals(kind: str) -> list[str]:
    """The beginning of a command line whose program starts with SIGINT and SIGTERM at their `default`, or to `ignore`.

    Otherwise it depends on how the tests were started: a shell's background jobs ignore SIGINT.
    """
    return ["env", f"--{kind}-signal=INT,TERM"]


@pytest.mark.parametrize("kind", ["default", "ignore"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_exec_ends_the_command(one: str, number: signal.Signals, kind: str) -> None:
    nap = f"98{number.value:02}.{len(kind)}5"
    command = [*with_signals(kind), str(SANDBOX), "exec", "--name", one, "--", "sleep", nap]
    process = subprocess.Popen(command, env=ENVIRONMENT)
    running = f"ps -eo args | grep -c '[s]leep {nap}' || true"
    while inside(running).strip() != "1":
        assert process.poll() is None
    process.send_signal(number)
    status = process.wait(timeout=10)
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    until(lambda: inside(running).strip() == "0")


def test_exec_costs_little(one: str) -> None:
    took = [9.0]
    # The best of many: other work on this machine must not decide it. The aim is 100 ms.
    while min(took) >= 0.25 and len(took) < 50:
        began = time.monotonic()
        sandbox("exec", "--", "true")
        took.append(time.monotonic() - began)
    assert min(took) < 0.25, took


def test_shell_is_a_login_shell(one: str) -> None:
    done = sandbox("shell", stdin="shopt -q login_shell && echo login; exit 4\n", check=False)
    assert (done.stdout, done.returncode) == ("login\n", 4)


def test_copy(one: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "tool").write_text("#!/bin/sh\n")
    (tree / "deep" / "tool").chmod(0o750)
    (tree / "link").symlink_to("/etc/hostname")
    sandbox("copy", str(tree), "/home/hive/")
    assert inside("stat -c '%U %a' tree/deep/tool; readlink tree/link") == "hive 750\n/etc/hostname\n"
    sandbox("copy", "--root", str(tree / "deep" / "tool"), "/opt/new/name")
    assert inside("stat -c '%U %F' /opt/new/name") == "root regular file\n"
    inside("ln -sfn /etc leads-out")
    before = Path("/etc/hostname").read_bytes()
    (tmp_path / "hostname").write_text("overwritten\n")
    refused = sandbox("copy", str(tmp_path / "hostname"), "/home/hive/leads-out/", check=False)
    assert refused.returncode == 1 and "--root" in refused.stderr
    sandbox("copy", "--root", str(tmp_path / "hostname"), "/home/hive/leads-out/")
    assert inside("cat /etc/hostname") == "overwritten\n" and Path("/etc/hostname").read_bytes() == before


def test_reboot_is_orderly_and_complete(one: str) -> None:
    before = inside(f"cat {BOOT_ID} /etc/machine-id; echo stays > stays").split()
    sandbox("reboot")
    after = inside(f"cat {BOOT_ID} /etc/machine-id").split()
    assert after[0] != before[0] and after[1] == before[1]
    assert inside("cat stays; systemctl --user is-system-running") == "stays\nrunning\n"
    assert "Reached target reboot.target" in inside("journalctl -b -1 --no-pager -o cat", "--root")


def test_power_cut_loses_what_was_not_synced(one: str) -> None:
    before = inside(f"cat {BOOT_ID}; echo kept > kept; sync kept; sync .; echo lost > lost; cat kept lost").split()
    assert before[1:] == ["kept", "lost"]
    sandbox("powercut")
    assert inside(f"cat {BOOT_ID}").strip() != before[0]
    assert inside("cat kept; cat lost 2> /dev/null || true") == "kept\n"


def test_root_inside_has_no_capability_that_the_system_inside_has_not(one: str) -> None:
    """CAP_SYS_TIME for one: there is one clock for this machine and all sandboxes."""
    bounding = "sed -n 's/^CapBnd:\\t//p' /proc/{}/status"
    assert inside(bounding.format("self"), "--root") == inside(bounding.format(1), "--root")
    effective = int(inside("sed -n 's/^CapEff:\\t//p' /proc/self/status", "--root"), 16)
    assert effective and effective == int(inside(bounding.format(1), "--root"), 16)
    assert inside("sed -n 's/^CapEff:\\t//p' /proc/self/status").strip("0\n") == ""
    done = sandbox("exec", "--root", "--", "sh", "-c", 'date --set="@$(date +%s.%N)"', check=False)
    assert done.returncode == 1 and "Operation not permitted" in done.stderr


@pytest.fixture(params=["controllers", "watchdog"])
def bounded(request: pytest.FixtureRequest) -> Iterator[str]:
    """A small sandbox, limited by cgroup controllers or by what stands in for them where a machine has none."""
    if request.param == "watchdog":
        ENVIRONMENT["HIVEMATRIX_SANDBOX_NO_CONTROLLERS"] = "1"
    try:
        up = sandbox("up", "--memory", f"{MEMORY}M", "--tasks", str(TASKS), name=TWO)
        assert ("watchdog" in up.stderr) == (request.param == "watchdog"), up.stderr
        yield str(request.param)
        sandbox("down", name=TWO)
        assert_gone(TWO)
    finally:
        ENVIRONMENT.pop("HIVEMATRIX_SANDBOX_NO_CONTROLLERS", None)


def tasks(name: str) -> int:
    """How many processes and threads the sandbox has."""
    unified = next(path for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if path.exists())
    count = 0
    for path, _, _ in os.walk(unified / f"hivematrix-sandbox-{name}"):
        with suppress(OSError):
            count += len((Path(path) / "cgroup.threads").read_text().split())
    return count


def test_what_takes_memory_is_killed_at_the_limit(bounded: str) -> None:
    hog = sandbox("exec", "--", "perl", "-e", HOG, name=TWO, check=False)
    assert hog.returncode == 128 + signal.SIGKILL, hog.stderr
    taken = int(hog.stdout.split()[-1]) * CHUNK
    # The watchdog looks ten times a second.
    assert MEMORY // 4 < taken < (MEMORY if bounded == "controllers" else MEMORY + 2048)
    assert inside("systemctl is-system-running", "--root", name=TWO).strip() == "running"


def test_a_fork_bomb_leaves_this_machine_and_its_processor_to_others(bounded: str) -> None:
    bomb = subprocess.Popen([str(SANDBOX), "exec", "--name", TWO, "--", "bash", "-c", BOMB], env=ENVIRONMENT,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    counts, took = [], []
    deadline = time.monotonic() + 10
    try:
        while time.monotonic() < deadline and bomb.poll() is None:
            began = time.monotonic()
            subprocess.run(["/bin/true"], check=True)
            took.append(time.monotonic() - began)
            counts.append(tasks(TWO))
            time.sleep(0.02)
        assert max(took) < 2, max(took)
        if bounded == "controllers":
            assert max(counts) > TASKS * 2 // 3, "the bomb did not go off"
            assert max(counts) <= TASKS + 20, "with what runs outside: the network's, and what passes signals on"
        else:
            assert bomb.wait(timeout=20) == 128 + signal.SIGKILL
            assert "killing sandbox-exec.scope" in (STATE / TWO / "console.log").read_text()
            assert inside("systemctl is-system-running", "--root", name=TWO).strip() == "running"
    finally:
        began = time.monotonic()
        sandbox("down", name=TWO)
        bomb.wait(timeout=20)
    assert time.monotonic() - began < 30


def test_limits_that_are_none_are_refused(one: str) -> None:
    for words in (["--memory", "lots"], ["--memory", "1M"], ["--disk", "1M"], ["--tasks", "3"]):
        refused = sandbox("up", *words, name=TWO, check=False)
        assert refused.returncode == 1 and words[0] in refused.stderr
    for words in (["--memory", "1G"], ["--disk", "3G"]):
        other = sandbox("up", *words, check=False)
        assert other.returncode == 1 and "other settings" in other.stderr


def test_the_disk_has_the_size_asked_for() -> None:
    sandbox("up", "--disk", "3G", name=TWO)
    try:
        assert 2500 < int(inside("df --output=size --block-size=1M / | tail -n 1", name=TWO)) <= 3072
    finally:
        sandbox("down", name=TWO)


def test_releases_side_by_side(one: str) -> None:
    """Each with its base and its packages."""
    release = {"bookworm": "trixie", "trixie": "bookworm"}[inside(". /etc/os-release; echo $VERSION_CODENAME").strip()]
    subprocess.run([str(SANDBOX), "create", "--release", release], check=True, env=ENVIRONMENT, timeout=600)
    sandbox("up", "--release", release, name=TWO)
    try:
        assert inside(". /etc/os-release; echo $VERSION_CODENAME", name=TWO).strip() == release
        assert inside("systemctl is-system-running", "--root", name=TWO).strip() == "running"
        assert inside("systemctl --user is-system-running", name=TWO).strip() == "running"
        sources = inside("cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null || true", name=TWO)
        assert f" {release} main" in sources and f" {release}-security main" in sources
        shown = sandbox("list").stdout
        assert all(f"({each}): cached in " in shown for each in ("bookworm", "trixie"))
    finally:
        sandbox("down", name=TWO)
    assert_gone(TWO)


def test_two_at_once_with_the_same_port(one: str) -> None:
    host_port = free_port()
    sandbox("up", "--publish", f"{host_port}:5004", name=TWO)
    try:
        for name in (ONE, TWO):
            sandbox("exec", "--", "tee", "serve.pl", stdin=SERVE, name=name)
            inside(f"systemd-run --user --quiet -p Type=notify -p NotifyAccess=all perl serve.pl {name}", name=name)
        with urllib.request.urlopen(f"http://127.0.0.1:{host_port}/", timeout=5) as answer:
            assert answer.read().decode() == f"from {TWO}"
        taken = sandbox("up", "--publish", f"{host_port}:1", name=THREE, check=False)
        assert taken.returncode == 1 and f"port {host_port}" in taken.stderr
    finally:
        sandbox("down", name=TWO)
    assert_gone(TWO, THREE)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", host_port), timeout=1)


def test_a_layer_starts_where_it_was_saved() -> None:
    layer = "test-sandbox-layer"
    sandbox("up", name=TWO)
    try:
        inside("echo prepared > /etc/prepared; rm /etc/issue", "--root", name=TWO)
        identity = inside("cat /etc/machine-id", name=TWO)
        sandbox("save", layer, "--down", name=TWO)
        sandbox("up", "--from", layer, name=TWO)
        assert inside("cat /etc/prepared; test ! -e /etc/issue", name=TWO) == "prepared\n"
        assert inside("cat /etc/machine-id", name=TWO) != identity
        refused = sandbox("forget", layer, check=False)
        assert refused.returncode == 1 and "in use" in refused.stderr
    finally:
        sandbox("down", name=TWO)
        sandbox("forget", layer)


def test_errors_say_what_to_do(one: str) -> None:
    away = sandbox("exec", "--", "true", name=TWO, check=False)
    assert away.returncode == 125 and f"scripts/sandbox up --name {TWO}" in away.stderr
    assert sandbox("reboot", name=TWO, check=False).returncode == 1
    assert sandbox("exec", check=False).returncode == 2
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-IS"]
    unprivileged = subprocess.run([*nobody, str(SANDBOX), "up"], capture_output=True, text=True)
    if "can't open file" not in unprivileged.stderr:  # a checkout that only root can read has nothing to say
        assert unprivileged.returncode == 1 and "sudo scripts/sandbox up" in unprivileged.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.05, 0.15, 0.25, 0.35])
def test_an_interrupted_up_cleans_up(number: signal.Signals, after: float) -> None:
    command = [*with_signals("default"), str(SANDBOX), "up", "--name", TWO]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(number)
    _, words = process.communicate(timeout=60)
    if process.returncode == 0:  # it was quicker
        sandbox("down", name=TWO)
    else:
        assert process.returncode in {128 + number, -number}, words
    assert_gone(TWO)


@pytest.mark.parametrize("after", [0.05, 0.12, 0.2, 0.3, 0.45])
def test_down_after_kill_9_of_up_leaves_nothing(after: float) -> None:
    process = subprocess.Popen([str(SANDBOX), "up", "--name", TWO], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.kill()
    process.wait()
    sandbox("down", name=TWO)
    assert_gone(TWO)
    sandbox("down", name=TWO)


def test_up_after_kill_9_of_up_starts_clean() -> None:
    process = subprocess.Popen([str(SANDBOX), "up", "--name", TWO], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while not (STATE / TWO / "disk.img").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    assert "interrupted run" in sandbox("up", name=TWO).stderr
    assert inside("systemctl is-system-running", name=TWO).strip() == "running"
    sandbox("down", name=TWO)
    assert_gone(TWO)


def test_down_leaves_nothing(one: str) -> None:
    assert traces(ONE)
    sandbox("down")
    assert_gone(ONE, TWO)
    assert sandbox("status", check=False).returncode == 1
