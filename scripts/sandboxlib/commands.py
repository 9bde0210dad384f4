"""The commands that change or describe sandboxes."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from . import base, boot, cgroup, enter, host, network
from .capture import capture
from .host_environment import passed_on
from .place import (
    ACCOUNT,
    DEFAULT_NAME,
    DEFAULT_RELEASE,
    RELEASES,
    Place,
    SandboxError,
    all_places,
    busy,
    cache_root,
    checked_name,
    lock,
    place_of,
)
from .settings import DISK, LEAST_DISK, LEAST_MEMORY, LEAST_TASKS, Limits, Settings, default_memory, parse_size

FAILED = 1
# Runs inside, so that symbolic links can't make the copy leave the sandbox.
RECEIVE = """
target=$1; name=$2; kind=$3
[ -d "$target" ] && target=${target%/}/$name
case $target in */) target=$target$name;; esac
parent=$(dirname "$target")
mkdir -p "$parent"
if [ "$kind" = directory ]; then
    mkdir -p "$target"
    tar --extract --preserve-permissions --no-same-owner --directory "$target"
else
    staging=$(mktemp -d "$parent/.copy-XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    tar --extract --preserve-permissions --no-same-owner --directory "$staging"
    mv -fT "$staging/$name" "$target"
fi
"""


def perform(arguments: argparse.Namespace) -> int:
    """Run a command; return the exit status."""
    if arguments.command == "create":
        release = arguments.release or DEFAULT_RELEASE
        base.ensure(release, fresh=arguments.fresh)
        host.say(f"The base is in {base.tree(release)}")
        return 0
    if arguments.command == "list":
        return _list()
    if arguments.command == "forget":
        return _forget(arguments)
    if arguments.command == "down" and arguments.all:
        for place in all_places():
            with lock(place):
                boot.down(place)
            host.say(f"Sandbox {place.name!r} is down")
        return 0
    place = place_of(arguments.name)
    if arguments.command == "status":
        return _status(place)
    if arguments.command == "copy":
        return _copy(place, arguments)
    with lock(place):
        return _change(place, arguments)


def _change(place: Place, arguments: argparse.Namespace) -> int:
    started_at = time.monotonic()
    done = "is up"
    if arguments.command == "up":
        return _up(place, arguments)
    if arguments.command == "reboot":
        boot.reboot(place)
        done = "has rebooted"
    elif arguments.command == "powercut":
        boot.power_cut(place)
        done = "lost its power and is up again"
    elif arguments.command == "save":
        boot.save(place, checked_name(arguments.layer), arguments.down)
        done = f"is saved as layer {arguments.layer!r}" + (" and down" if arguments.down else " and up again")
    elif arguments.command == "down":
        boot.down(place)
        done = "is down"
    host.say(f"Sandbox {place.name!r} {done} ({time.monotonic() - started_at:.1f} s)")
    return 0


def _up(place: Place, arguments: argparse.Namespace) -> int:
    publish = network.parse_publish(arguments.publish)
    kind = arguments.network or ("private" if publish or place.name != DEFAULT_NAME else "host")
    if publish and kind == "host":
        raise SandboxError(
            "--publish is for a private network", "on the host's network every port is reachable as it is"
        )
    limits = Limits(_memory(arguments) or default_memory(), arguments.tasks, _disk(arguments) or DISK)
    if arguments.tasks < LEAST_TASKS:
        raise SandboxError(f"--tasks {arguments.tasks}: less than {LEAST_TASKS}", "a booted system alone has 30")
    started_at = time.monotonic()
    if place.ready.exists():
        _check_same(place, arguments, kind, publish)
        if boot.is_up(place):
            host.say(f"Sandbox {place.name!r} is already up")
            return 0
        host.say(f"Switching {place.name!r} on again with the disk it has (for a clean one: down, then up)")
        boot.stop_everything(place)  # an interrupted power cut or reboot may have left processes
        boot.boot_again(place, Settings.read(place.settings))
    else:
        if boot.exists(place):
            host.say(f"Removing what an interrupted run has left of {place.name!r}")
            boot.down(place)
        release = arguments.release or (base.release_of(arguments.layer) if arguments.layer else DEFAULT_RELEASE)
        boot.up(place, kind, publish, release, arguments.layer, limits)
    took = time.monotonic() - started_at
    host.say(f"Sandbox {place.name!r} is up ({took:.1f} s). {_describe(Settings.read(place.settings))}")
    extra = "" if place.name == DEFAULT_NAME else f" --name {place.name}"
    host.say(f"  look around: scripts/sandbox shell{extra}    end it: scripts/sandbox down{extra}")
    return 0


def _memory(arguments: argparse.Namespace) -> int | None:
    return parse_size("--memory", arguments.memory, LEAST_MEMORY) if arguments.memory else None


def _disk(arguments: argparse.Namespace) -> int | None:
    return parse_size("--disk", arguments.disk, LEAST_DISK) if arguments.disk else None


def _check_same(place: Place, arguments: argparse.Namespace, kind: str, publish: tuple[tuple[int, int], ...]) -> None:
    has = Settings.read(place.settings)
    other = (
        (arguments.network is not None and kind != has.network)
        or (bool(publish) and publish != has.publish)
        or (arguments.layer is not None and has.layers[:1] != (arguments.layer,))
        or (arguments.release is not None and arguments.release != has.release)
        or _memory(arguments) not in {None, has.limits.memory}
        or _disk(arguments) not in {None, has.limits.disk}
    )
    if other:
        raise SandboxError(
            f"{place.name!r} was started with other settings: {_describe(has)}",
            "take it down first, or use another --name",
        )


def _describe(settings: Settings) -> str:
    release = f"{RELEASES[settings.release]} ({settings.release}), {_limits(settings.limits)}."
    return f"{release} {_reach(settings)}"


def _limits(limits: Limits) -> str:
    memory, disk = (f"{size / 2**30:.3g} GiB" for size in (limits.memory, limits.disk))
    return f"at most {memory} of memory, {disk} of disk and {limits.tasks} tasks"


def _reach(settings: Settings) -> str:
    if settings.network == "host":
        return "It shares this machine's network."
    ports = ", ".join(f"127.0.0.1:{outside} -> {inside}" for outside, inside in settings.publish)
    return f"Private network; published: {ports or 'no port'}."


def _copy(place: Place, arguments: argparse.Namespace) -> int:
    source = Path(arguments.source).resolve()
    if not source.exists():
        raise SandboxError(f"{arguments.source}: no such file or directory on this machine")
    if not arguments.target.startswith("/"):
        raise SandboxError(f"{arguments.target}: not an absolute path", "say where in the sandbox, from '/'")
    entry = enter.open_entry(place) if place.ready.exists() else None
    if entry is None:
        raise boot.not_up(place)
    directory = source.is_dir()
    here, what = (source, ".") if directory else (source.parent, source.name)
    pack = subprocess.Popen(["tar", "--create", "--directory", str(here), "--", what], stdout=subprocess.PIPE)
    assert pack.stdout is not None
    os.dup2(pack.stdout.fileno(), 0)
    pack.stdout.close()
    account = "root" if arguments.root else ACCOUNT
    kind = "directory" if directory else "file"
    receive = ["/bin/sh", "-euc", RECEIVE, "sh", arguments.target, source.name, kind]
    status = enter.execute(entry, enter.Target(account, receive, passed_on()))
    os.close(0)
    if pack.wait() != 0 and status == 0:
        raise SandboxError(f"{source}: could not be read completely")
    if status != 0:
        raise SandboxError(
            f"could not write {arguments.target} as {account} (exit {status})",
            "" if arguments.root else f"where {ACCOUNT} may not write: copy --root",
        )
    return 0


def _forget(arguments: argparse.Namespace) -> int:
    if arguments.all:
        base.forget_all()
        host.say(f"Nothing is left in {cache_root()}")
        return 0
    if not arguments.layers:
        raise SandboxError("which layer?", "see scripts/sandbox list; or --all")
    for name in arguments.layers:
        base.forget(checked_name(name))
        host.say(f"Layer {name!r} is forgotten")
    return 0


def _state(place: Place) -> str:
    if boot.is_up(place):
        return "up"
    if busy(place):
        return "in work"
    return "off" if place.ready.exists() and not cgroup.populated(place) else "leftover"


def _list() -> int:
    places = all_places()
    for place in places:
        settings = Settings.read(place.settings) if place.settings.exists() else None
        reach = f"{settings.release:9} {_reach(settings)}" if settings else ""
        layers = f" From {', '.join(settings.layers)}." if settings and settings.layers else ""
        print(f"{place.name:20} {_state(place):9} {reach}{layers}")
    if not places:
        print("no sandbox; start one: scripts/sandbox up")
    identities = {release: base.base_identity(release) for release in RELEASES}
    for item in base.layers():
        stale = "" if item.base in identities.values() else " (its base was replaced: make it again)"
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.made))
        print(f"{item.name:20} layer     saved {made}{stale}")
    for release, identity in identities.items():
        where = f"cached in {base.tree(release)}" if identity else "not built yet"
        print(f"base of {RELEASES[release]} ({release}): {where}")
    return 0


def _status(place: Place) -> int:
    if not boot.exists(place):
        raise boot.not_up(place)
    state = _state(place)
    print(f"sandbox:  {place.name}\nstate:    {state}")
    if place.settings.exists():
        settings = Settings.read(place.settings)
        print(f"started:  {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(settings.started))}")
        print(f"release:  {RELEASES[settings.release]} ({settings.release})")
        print(f"limits:   {_limits(settings.limits)}")
        print(f"network:  {_reach(settings)}")
        print(f"layers:   {', '.join((*settings.layers, 'base'))}")
    leader = cgroup.leader(place)
    if leader:
        system = capture(leader, ["systemctl", "is-system-running"]).stdout.strip()
        failed = capture(leader, ["systemctl", "--failed", "--plain", "--no-legend"]).stdout.split("\n")
        names = ", ".join(line.split()[0] for line in failed if line.strip())
        print(f"system:   {system}{', failed: ' + names if names else ''}")
        print(f"PID 1:    {leader} (as this machine sees it)")
    print(f"disk:     {boot.disk_usage(place) / 1e6:.0f} MB of {place.disk}\nconsole:  {place.console}")
    sys.stdout.flush()
    return 0 if state == "up" else FAILED
