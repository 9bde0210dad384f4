"""Runs in the sandbox as the suite's account: measures helmctl against systemctl and supervisorctl."""

import argparse
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HOME = Path.home()
BENCH = HOME / "bench"
NAMES = [f"s{number:02}" for number in range(60)]
UNITS = [f"hivematrix-{name}" for name in NAMES]
SUPERVISOR = ["supervisorctl", "-c", str(BENCH / "supervisord.conf")]
STOPPED = 5.0
TIMEOUT = 300.0


def run(*words: str, check: bool = True) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        sys.exit(f"WRONG: {' '.join(words)}: not done within {TIMEOUT:g} s")
    if check and done.returncode:
        sys.exit(f"bench: {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def quiet(*words: str) -> None:
    run(*words, check=False)


def posted(path: str) -> None:
    """POST to helmd over the account's socket; exit if the answer is not 200."""
    connection = http.client.HTTPConnection("helm", timeout=TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(os.environ["XDG_RUNTIME_DIR"] + "/hivematrix/helm.sock")
    connection.request("POST", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        sys.exit(f"bench: POST {path}: status {response.status}\n{body.decode()}")


def timed(words: Sequence[str], runs: int, before: Callable[[], None] = lambda: None) -> list[float]:
    """Return the durations in seconds of RUNS runs of WORDS, after one that is not counted. BEFORE is not timed."""
    figures = []
    for _ in range(runs + 1):
        before()
        began = time.perf_counter()
        run(*words)
        figures.append(time.perf_counter() - began)
    return figures[1:]


def show(what: str, figures: Sequence[float], peers: Mapping[str, Sequence[float]] | None = None) -> None:
    """Print a line: median and range in milliseconds, and the ratio of medians to each peer."""
    median = statistics.median(figures)
    line = f"{what:<44} {1000 * median:7.1f} ms  [{1000 * min(figures):.1f} to {1000 * max(figures):.1f}]"
    for name, other in (peers or {}).items():
        theirs = statistics.median(other)
        line += f"   {median / theirs:.2f} x {name} ({1000 * theirs:.1f} ms)"
    print(line, flush=True)


def registry() -> str:
    services = ['[services.one]\ntype = "command"\npath = "~/bench"\nstart_command = ["/usr/bin/sleep", "infinity"]\n']
    for number, name in enumerate(NAMES):
        services.append(
            f'[services.{name}]\ntype = "command"\npath = "~/bench"\nport = {7000 + number}\n'
            'start_command = ["/usr/bin/python3", "-I", "-S", "tiny.py"]\n'
            f'environment = {{ PORT = "{7000 + number}" }}\n'
            'health = { interval = "10s" }\n'
        )
    return "\n".join(services)


def supervisor_settings() -> str:
    socket = BENCH / "supervisor.sock"
    parts = [
        f"[unix_http_server]\nfile={socket}\n[supervisorctl]\nserverurl=unix://{socket}\n"
        f"[supervisord]\nlogfile={BENCH}/supervisord.log\npidfile={BENCH}/supervisord.pid\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        "[program:one]\ncommand=/usr/bin/sleep infinity\nautostart=false\nstartsecs=0\n"
    ]
    for number, name in enumerate(NAMES):
        parts.append(
            f"[program:{name}]\ncommand=/usr/bin/python3 -I -S {BENCH}/tiny.py\nautostart=false\nstartsecs=0\n"
            f'environment=PORT="{8000 + number}"\n'
        )
    return "\n".join(parts)


def prepare() -> None:
    (BENCH / "services.toml").write_text(registry())
    run("helmctl", "setup", "--registry", str(BENCH / "services.toml"))
    plain = HOME / ".config/systemd/user/peer-one.service"
    plain.parent.mkdir(parents=True, exist_ok=True)
    plain.write_text("[Service]\nType=exec\nExecStart=/usr/bin/sleep infinity\n")
    run("systemctl", "--user", "daemon-reload")
    (BENCH / "supervisord.conf").write_text(supervisor_settings())
    run("supervisord", "-c", str(BENCH / "supervisord.conf"))
    time.sleep(2)


def start_one(runs: int) -> None:
    peers = {
        "systemctl": timed(
            ["systemctl", "--user", "start", "peer-one"], runs, lambda: quiet("systemctl", "--user", "stop", "peer-one")
        ),
        "supervisorctl": timed([*SUPERVISOR, "start", "one"], runs, lambda: quiet(*SUPERVISOR, "stop", "one")),
    }
    again = ("helmctl", "stop", "one", "-q")
    show("start of a trivial service", timed(["helmctl", "start", "one"], runs, lambda: quiet(*again)), peers)
    print("    includes 100 ms for which a service without a port must be active to count as started")
    print("    and mostly the unit's set-up: namespaces, services.json, the probe; the peers do none of these")
    queued = timed(["helmctl", "start", "one", "--no-block"], runs, lambda: quiet(*again))
    show("the same, without waiting (--no-block)", queued, peers)
    added = []
    for _ in range(runs):
        quiet("helmctl", "stop", "s00", "-q")
        began = time.perf_counter()
        run("helmctl", "start", "s00")
        took = time.perf_counter() - began
        shown = run("systemctl", "--user", "show", UNITS[0], "-p", "InactiveExitTimestampMonotonic",
                    "-p", "ActiveEnterTimestampMonotonic")  # fmt: skip
        timestamps = dict(line.split("=") for line in shown.splitlines())
        active = int(timestamps["ActiveEnterTimestampMonotonic"]) - int(timestamps["InactiveExitTimestampMonotonic"])
        added.append(took - active / 1e6)
    show("added to the start of a service with a port", added)


def over_api(runs: int) -> None:
    """Start and stop over the API against helmctl, in turn; both include the start of helmctl's process."""
    for verb, before in (("start", "stop"), ("stop", "start")):
        helmctl: list[float] = []
        api: list[float] = []
        for _ in range(runs):
            quiet("helmctl", before, "one", "-q")
            began = time.perf_counter()
            run("helmctl", verb, "one", "-q")
            helmctl.append(time.perf_counter() - began)
            quiet("helmctl", before, "one", "-q")
            began = time.perf_counter()
            posted(f"/api/services/one/{verb}")
            api.append(time.perf_counter() - began)
        show(f"{verb} of a trivial service over the API", api, {"helmctl": helmctl})
        added = 1000 * (statistics.median(api) - statistics.median(helmctl))
        print(f"    adds {added:.1f} ms to helmctl's own time (limit 150 ms)")


def stop_one(runs: int) -> None:
    def started() -> None:
        quiet("helmctl", "start", "one", "-q")

    plain = timed(["systemctl", "--user", "stop", "hivematrix-one"], runs, started)
    show("stop of a trivial service", timed(["helmctl", "stop", "one"], runs, started), {"systemctl": plain})


def start_all(runs: int) -> None:
    def stop() -> None:
        quiet("systemctl", "--user", "stop", *UNITS)
        quiet("systemctl", "--user", "reset-failed", *UNITS)

    few = max(3, runs // 4)
    helm = timed(["helmctl", "start", *NAMES, "-q"], few, stop)
    plain = timed(["systemctl", "--user", "start", *UNITS], few, stop)
    show("60 services at once, each until healthy", helm, {"systemctl": plain})


def status(runs: int) -> None:
    for count in (6, 60):
        names, units = NAMES[:count], UNITS[:count]
        for name in names:
            quiet(*SUPERVISOR, "start", name)
        peers = {
            "systemctl": timed(["systemctl", "--user", "status", "--no-pager", *units], runs),
            "supervisorctl": timed([*SUPERVISOR, "status", *names], runs),
        }
        show(f"status of {count}, with a health check of each", timed(["helmctl", "status", *names], runs), peers)
    quiet(*SUPERVISOR, "shutdown")


def cpu_seconds(unit: str) -> float:
    return int(run("systemctl", "--user", "show", "--value", "-p", "CPUUsageNSec", unit)) / 1e9


def main_pid(unit: str) -> int:
    return int(run("systemctl", "--user", "show", "--value", "-p", "MainPID", unit))


def resident_mb(unit: str) -> float:
    text = Path(f"/proc/{main_pid(unit)}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def idle(seconds: float) -> None:
    time.sleep(15)
    before = {unit: cpu_seconds(unit) for unit in ("helmd", "helmd-journal")}
    time.sleep(seconds)
    for unit, limit in (("helmd", 80), ("helmd-journal", 40)):
        share = 100 * (cpu_seconds(unit) - before[unit]) / seconds
        memory = resident_mb(unit)
        print(f"{unit + ' idle, 60 units, probes every 10 s':<44} {share:6.2f} % of one core, {memory:.1f} MB RSS "
              f"(limit {limit} MB)")  # fmt: skip


def request() -> float:
    """Return the seconds that helmd takes to refuse a request without a token, which needs only its event loop."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", 5004, timeout=10)
    connection.request("GET", "/api/services/status")
    connection.getresponse().read()
    connection.close()
    return time.perf_counter() - began


def stopped_manager() -> None:
    manager = int(Path(f"/proc/{main_pid('helmd')}/stat").read_text().rpartition(")")[2].split()[1])
    baseline = [request() for _ in range(100)]
    wake = threading.Timer(STOPPED, os.kill, (manager, signal.SIGCONT))
    os.kill(manager, signal.SIGSTOP)
    wake.start()
    try:
        figures, end = [], time.monotonic() + STOPPED + 1
        while time.monotonic() < end:
            figures.append(request())
            time.sleep(0.01)
    finally:
        wake.join()
    worst, median, otherwise = max(figures), statistics.median(figures), statistics.median(baseline)
    what = "helmd response, user manager stopped for 5 s"
    print(f"{what:<44} {1000 * worst:7.1f} ms at worst, {1000 * median:.1f} median ({1000 * otherwise:.1f} otherwise)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench control")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--idle", type=float, default=60.0)
    given = parser.parse_args()
    prepare()
    start_one(given.runs)
    stop_one(given.runs)
    over_api(given.runs)
    start_all(given.runs)
    status(given.runs)
    idle(given.idle)
    stopped_manager()


if __name__ == "__main__":
    main()
