"""The command line of `scripts/sandbox`: arguments, errors and signals."""

import argparse
import os
import signal
import sys
from functools import cache
from pathlib import Path

from . import enter
from . import place as places
from .host_environment import passed_on
from .place import SandboxError

DESCRIPTION = """\
A Debian container with systemd as PID 1, for trying Helm without changing this machine, and for its tests.

    scripts/sandbox up                       start one (the first time builds the base, half a minute)
    scripts/sandbox up --release bookworm    the same with Debian 12
    scripts/sandbox exec -- systemctl --user status
    scripts/sandbox exec --root -- apt-get update
    scripts/sandbox copy dist/helm.deb /tmp/
    scripts/sandbox shell
    scripts/sandbox down                     remove it completely

It works on any Linux machine where you are root, with or without systemd. Commands run as the account `hive` with its
user bus, unless --root or --user is given.
"""
FAILED, NOT_ENTERED = 1, 125
NAME_TEXT = f"which sandbox (default: {places.DEFAULT_NAME})"


class Interrupted(BaseException):
    """Raised on SIGTERM and SIGHUP, so that they clean up like Ctrl-C."""


@cache
def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="scripts/sandbox",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit status: 0 done, 1 failed, 2 usage; exec and shell pass on the command's (125: not entered).",
    )
    top.add_argument("--name", default=places.DEFAULT_NAME, help=NAME_TEXT)
    # With `prog`, argparse does not load shutil to find it out: most calls are `exec`, as short as they can be.
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", prog=top.prog)

    def add(name: str, text: str, example: str = "", **more: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=text,
            description=more.get("description", text[0].upper() + text[1:] + "."),
            epilog=f"example:\n{example}" if example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument("--name", default=argparse.SUPPRESS, help=NAME_TEXT)
        return made

    create = add("create", "build the cached Debian base without starting anything", "  scripts/sandbox create --fresh")
    create.add_argument("--fresh", action="store_true", help="rebuild it; its saved layers become unusable")

    up = add(
        "up",
        "start a sandbox and wait until its system and user manager are up",
        "  scripts/sandbox up\n"
        "  scripts/sandbox up --name two --publish 15004:5004\n"
        "  scripts/sandbox up --name three --from helm-installed",
        description="Start a sandbox and wait until its system and hive's user manager are up.\n\n"
        f"{places.DEFAULT_NAME!r} shares this machine's network: port 5004 inside is available at\n"
        "127.0.0.1:5004. Every other name gets a private network, so that ports never conflict: outgoing\n"
        "connections use slirp4netns, and the host can connect to the ports published by --publish.",
    )
    for made in (create, up):
        made.add_argument(
            "--release",
            choices=places.RELEASES,
            help=f"which Debian (default: {places.DEFAULT_RELEASE}, or that of the layer)"
            if made is up
            else f"which Debian (default: {places.DEFAULT_RELEASE})",
        )
    up.add_argument("--from", dest="layer", metavar="LAYER", help="start from a layer made by 'save'")
    up.add_argument(
        "--network",
        choices=("host", "private"),
        help=f"default: host for {places.DEFAULT_NAME}, private for other names and with --publish",
    )
    up.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="HOST:SANDBOX",
        help="forward 127.0.0.1:HOST to 127.0.0.1:SANDBOX inside; may be repeated (private network)",
    )
    up.add_argument(
        "--memory",
        metavar="SIZE",
        help="memory of all its processes together, for example 6G (default: 4G, or 3/4 of what this machine has)",
    )
    up.add_argument("--disk", metavar="SIZE", help="size of its disk, a sparse file (default: 20G)")
    up.add_argument(
        "--tasks",
        type=int,
        default=places.TASKS,
        metavar="N",
        help=f"processes and threads that it may have (default: {places.TASKS})",
    )

    run = add(
        "exec",
        "run a command inside; stdin, output, signals and exit status pass through",
        "  scripts/sandbox exec -- helmctl status\n  scripts/sandbox exec --root -- sh -c 'cat > /etc/motd' < motd",
    )
    shell = add("shell", "open a login shell inside", "  scripts/sandbox shell --root")
    for made in (run, shell):
        who = made.add_mutually_exclusive_group()
        who.add_argument("--root", action="store_true", help="as root")
        who.add_argument("--user", default=places.ACCOUNT, help=f"as this account (default: {places.ACCOUNT})")
        made.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable for it")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="-- CMD …", help="the command and its arguments")

    copy = add(
        "copy",
        "copy a file or directory of this machine into it",
        "  scripts/sandbox copy tests/suite /home/hive/\n  scripts/sandbox copy --root helm.deb /root/helm.deb",
        description="Copy a file or directory of this machine into it, owned by hive (--root: by root). Like\n"
        "cp -r: into DST if that is a directory or ends with '/', else as DST; parents are created.",
    )
    copy.add_argument("--root", action="store_true", help="write as root, owned by root")
    copy.add_argument("source", metavar="SRC", help="path on this machine")
    copy.add_argument("target", metavar="DST", help="absolute path inside")

    add("reboot", "reboot it cleanly; returns when it is up again")
    add(
        "powercut",
        "simulate a power cut, which loses unsynced data, and boot it again",
        description="Shut its disk down without a flush (the ext4 shutdown ioctl), kill everything, and boot again\n"
        "from the disk. Returns when it is up.",
    )
    save = add(
        "save",
        "save its changes as a layer for 'up --from'",
        "  scripts/sandbox up --name prepare\n"
        "  scripts/sandbox exec --name prepare --root -- apt-get install -y postgresql\n"
        "  scripts/sandbox save --name prepare with-postgres --down\n"
        "  scripts/sandbox up --name one --from with-postgres",
        description="Shut it down cleanly, save its changes as LAYER (replacing an older one), and boot\n"
        "it again. Journal and machine id are not saved.",
    )
    save.add_argument("layer", metavar="LAYER", help="the layer's name")
    save.add_argument("--down", action="store_true", help="take the sandbox down instead of booting it again")
    forget = add("forget", "remove layers from the cache", "  scripts/sandbox forget with-postgres")
    forget.add_argument("layers", nargs="*", metavar="LAYER")
    forget.add_argument("--all", action="store_true", help="every layer, and the base")
    add("list", "list sandboxes and layers")
    add("status", "describe one sandbox; exit status 0 if it is up, else 1")
    down = add("down", "stop it and remove it completely", "  scripts/sandbox down --all")
    down.add_argument("--all", action="store_true", help="every sandbox")
    return top


def run_inside(arguments: argparse.Namespace, command: list[str], login: bool) -> int:
    """`exec` and `shell`."""
    place = places.place_of(arguments.name)
    entry = enter.open_entry(place) if place.ready.exists() else None
    if entry is None:
        raise _not_up(place)
    settings = passed_on()
    for word in arguments.env:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise SandboxError(f"--env {word}: not NAME=VALUE")
        settings[name] = value
    account = "root" if arguments.root else arguments.user
    target = enter.Target(account, command, settings, login)
    if login:
        from .terminal import shell

        return shell(entry, target)
    return enter.execute(entry, target)


def _not_up(place: places.Place) -> SandboxError:
    if places.busy(place):
        return SandboxError(f"sandbox {place.name!r} is still being worked on", "wait for the other scripts/sandbox")
    extra = "" if place.name == places.DEFAULT_NAME else f" --name {place.name}"
    return SandboxError(f"sandbox {place.name!r} is not up", f"start it: scripts/sandbox up{extra}")


def split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """Return the arguments before the first `--` and those after it, which belong to the command."""
    if "--" not in arguments:
        return arguments, None
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def main(given: list[str]) -> int:
    before, command = split(given)
    top = parser()
    arguments = top.parse_args(before)
    if command is not None and arguments.command != "exec":
        top.error(f"{arguments.command} takes no '--'")
    in_sandbox = arguments.command in {"exec", "shell"}
    try:
        if os.geteuid() != 0:
            raise SandboxError("this needs root", "run: sudo scripts/sandbox " + " ".join(given))
        if arguments.command == "exec":
            command = [*arguments.words, "--", *command] if arguments.words and command else arguments.words or command
            if not command:
                top.error("exec: which command? write it after '--'")
            return run_inside(arguments, command, login=False)
        if arguments.command == "shell":
            return run_inside(arguments, ["bash"], login=True)
        from .commands import perform

        return perform(arguments)
    except SandboxError as error:
        print(f"sandbox: {error.sentence}", file=sys.stderr)
        for line in error.hint.splitlines():
            print(f"  {line}", file=sys.stderr)
        return NOT_ENTERED if in_sandbox else FAILED


def interrupt(number: int, frame: object) -> None:
    raise Interrupted


def start(given: list[str]) -> int:
    """Entry point of the script: run the command line, and clean up on signals."""
    if given[:1] == ["_forward"]:  # started by `up --publish`, see network.py
        from .forward import forward

        forward(int(given[1]), given[2:])
    if given[:1] == ["_watch"]:  # started by `up`, see boot.py
        from .watchdog import watch

        watch(Path(given[1]), int(given[2]), int(given[3]))
    if given[:1] == ["_serve"]:  # started by tests/system/exec_client.py
        from .serve import serve

        parser()  # which all commands then have
        serve(int(given[1]), main)
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupt)
        return main(given)
    except (KeyboardInterrupt, Interrupted) as stopped:
        print("sandbox: interrupted", file=sys.stderr)
        return 128 + (signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGTERM)
