"""What a service's program needs from directories that its sandbox hides, and what is bound into it read-only for that:
interpreters, virtual environments, and the installations that these are based on.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from helmd.model.layout import Layout
from helmd.model.suite.names import Mode
from helmd.model.suite.service import Registry, Service
from helmd.model.units.hardening import HIDDEN_ROOTS, ISOLATED
from helmd.systemd.scripts import head_of, interpreter_of

SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
"""Directories of PATH besides those of a service's own environment."""

VENV_FILE = "pyvenv.cfg"

_LANDMARKS = (
    VENV_FILE,
    "lib/python3*/os.py",
    "lib/python3*/site-packages",
    "lib/pypy3*/os.py",
    "lib-python/3/os.py",
    "lib/node_modules",
    "lib/ruby",
    "lib/perl5",
    "lib/erlang",
    "lib/modules",
    "lib/jrt-fs.jar",
    "conda-meta",
    "libexec/pyenv",
    "libexec/rbenv",
)
"""Files by which the directory above ``bin`` is an installation of an interpreter: Python (as it looks for them itself,
see getpath.py), PyPy, Node, Ruby, Perl, Erlang, Java, conda, pyenv, rbenv."""

_PROGRAM_DIRECTORIES = ("bin", "sbin", "shims")
_MAX_LINKS = 40
"""Symbolic links that are followed, as in path_resolution(7)."""


class Needs(NamedTuple):
    """What a program needs besides its service's own directories.

    ``places`` are to be bound read-only. ``search`` comes first in PATH.
    """

    places: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    virtual_environment: str = ""
    user_base: str = ""
    """Where packages are that were installed by ``pip install --user`` (PYTHONUSERBASE): found by HOME otherwise."""
    refused: tuple[tuple[str, str], ...] = ()
    """What is hidden from the service and not bound: the setting that needs it, and a sentence."""


def hidden_roots(layout: Layout) -> tuple[Path, ...]:
    """Return directories that a sandbox hides: those that ProtectHome= hides, and the account's own."""
    return (*map(Path, HIDDEN_ROOTS), *account_roots(layout))


def account_roots(layout: Layout) -> tuple[Path, ...]:
    """Return the account's home directory, and directories of its own that neither that nor ProtectHome= covers."""
    own = (layout.config, layout.state, layout.data, layout.units, layout.runtime)
    hidden = (*map(Path, HIDDEN_ROOTS), layout.home)
    return (layout.home, *(place for place in own if not any(place.is_relative_to(root) for root in hidden)))


def own_places(service: Service, layout: Layout) -> tuple[Path, ...]:
    """Return what the service may write to: its directory, and where that is the version of a module, the state beside
    it.
    """
    directory = layout.resolve(service.path)
    module = layout.module_of(directory)
    beside = () if module is None else (module.shared,)
    return (directory, *beside, *map(layout.resolve, service.writable_paths))


def program_of(service: Service, mode: Mode, word: str, layout: Layout, search: Sequence[str]) -> Path | None:
    """Return the program that the first WORD of ``pre_start`` or ``reload_command`` names, or None for one of the
    system.

    SEARCH comes first in the service's PATH (`Needs.search`). systemd itself looks in places of its own only.
    """
    directory = layout.resolve(service.path)
    if "/" in word:
        return layout.resolve_in(directory, word)
    own = [layout.resolve_in(directory, service.python_bin).parent] if service.type == "python" else []
    return _first(word, [*own, *(_listed(service, mode) or map(Path, search))])


def _listed(service: Service, mode: Mode) -> list[Path]:
    """Return the directories in PATH, if the service's configuration sets it."""
    return [Path(place) for place in service.environment_in(mode).get("PATH", "").split(":") if place.startswith("/")]


def needs_of(service: Service, mode: Mode, registry: Registry, layout: Layout) -> Needs:
    """Return what the programs of SERVICE in MODE need. Reads links, ``pyvenv.cfg`` and the first lines of scripts."""
    if service.type in ("postgres", "external"):
        return Needs()
    directory = layout.resolve(service.path)
    search = _Search(service, registry, layout)
    of_mode = service.modes[mode].start_command if mode in service.modes else ()
    words = of_mode or service.start_command
    search.setting = f"{mode}.start_command" if of_mode else "start_command" if words else "python_bin"
    listed = _listed(service, mode)
    if words and "/" in words[0]:
        search.program(layout.resolve_in(directory, words[0]), named=True)
    elif words:
        own = (
            [layout.resolve_in(directory, service.python_bin).parent] if service.type == "python" and not listed else []
        )
        if found := _first(words[0], [*own, *listed]):
            search.program(found, named=True)
    for place in listed:
        search.directory(place)
    if service.type == "python" and not search.virtual_environment:
        interpreter = layout.resolve_in(directory, service.python_bin)
        if not words:
            search.program(interpreter, named=True)
        elif (interpreter.parent.parent / VENV_FILE).is_file():
            search.program(interpreter, named=False)
    for setting, command in (("pre_start", service.pre_start), ("reload_command", service.reload_command)):
        search.setting = setting
        if command and (found := program_of(service, mode, command[0], layout, search.search)):
            search.program(found, named=True, main=False)
    return Needs(
        tuple(map(str, search.places)),
        tuple(search.search),
        search.virtual_environment,
        search.user_base,
        tuple(search.refused),
    )


def refused_paths(service: Service, layout: Layout) -> Iterator[str]:
    """Yield why ``readable_paths`` of SERVICE can't be bound, a sentence each."""
    for given in service.readable_paths:
        place = layout.resolve(given)
        if guard := layout.exposed(Path(os.path.realpath(place))) or layout.exposed(place):
            yield f"{place} may not be shown to a service: {_overlap(place, guard)}"


def exposing_paths(service: Service, layout: Layout) -> Iterator[str]:
    """Yield directories of SERVICE through which it could act as the account in spite of its sandbox."""
    for place in own_places(service, layout):
        if guard := layout.exposed(Path(os.path.realpath(place))):
            yield f"{place} ({_overlap(place, guard)})"


def _overlap(place: Path, guard: Path) -> str:
    if Path(os.path.realpath(place)).is_relative_to(guard):
        return f"it lies in {guard}" if place != guard else "with it a program can act as the account"
    return f"{guard} is in it, with which a program can act as the account"


def _first(name: str, places: list[Path]) -> Path | None:
    return next((place / name for place in places if os.access(place / name, os.X_OK)), None)


@dataclass
class _Search:
    """Follows a program through links, virtual environments and script headers, collecting what has to be bound.

    What a file in the service's own directories says counts less than the configuration: the service can change it. So
    only installations of interpreters are bound because of it.
    """

    service: Service
    registry: Registry
    layout: Layout
    places: list[Path] = field(default_factory=list)
    search: list[str] = field(default_factory=list)
    virtual_environment: str = ""
    user_base: str = ""
    setting: str = ""
    """The setting for which places are collected."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    _seen: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._own = own_places(self.service, self.layout)
        self._readable = tuple(map(self.layout.resolve, self.service.readable_paths))
        self._hidden = hidden_roots(self.layout) if self.service.hardening in ISOLATED else ()
        self._others = tuple(
            _whole(self.layout.resolve(other.path), self.layout)
            for other in self.registry.services.values()
            if other.name != self.service.name and not other.external and other.type != "postgres"
        )

    def program(self, path: Path, *, named: bool, main: bool = True) -> None:
        """Collect what executing PATH needs. NAMED: the configuration names it. MAIN: it is the service's own."""
        for _ in range(_MAX_LINKS):
            named = named and not self._writable(path)
            self._environment(path, main)
            path = self._followed(path)
            if path in self._seen:
                return
            self._seen.add(path)
            if self._sees(path):
                self._script(path, named and not self._writable(path), main)
                return
            if not self._bind(path, named, main):
                return
            self._seen.discard(path)

    def directory(self, place: Path) -> None:
        """Collect what a directory of programs in the service's own PATH needs."""
        place = self._followed(place)
        if not self._sees(place) and place.is_dir():
            whole = _installation(place / "program")
            self._add(whole or place)

    def _environment(self, path: Path, main: bool) -> None:
        """Collect what the virtual environment of the interpreter PATH is based on (PEP 405)."""
        prefix = path.parent.parent
        base = _home_in(prefix / VENV_FILE)
        if base is None:
            return
        if main and not self.virtual_environment:
            self.virtual_environment = str(prefix)
            self.search.insert(0, str(path.parent))
        interpreter = _first("python3", [base]) or _first("python", [base])
        if interpreter and interpreter != path:
            self.program(interpreter, named=False, main=False)

    def _script(self, path: Path, named: bool, main: bool) -> None:
        """Collect what the interpreter in the first line of a script needs (execve(2))."""
        words = interpreter_of(path)
        if not words:
            return
        if os.path.basename(words[0]) != "env":
            self.program(Path(words[0]), named=named, main=main)
            return
        name = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        places = [*map(Path, self.search), *map(Path, SYSTEM_PATH)]
        if found := Path(name) if name.startswith("/") else _first(name, places) if name else None:
            self.program(found, named=named, main=main)

    def _followed(self, path: Path) -> Path:
        """PATH, through the symbolic links that the service sees. What is hidden is bound under the name it has."""
        at, remaining, links = Path("/"), [part for part in path.parts if part != "/"], 0
        while remaining:
            part = remaining.pop(0)
            if part == "..":
                at = at.parent
                continue
            target = _link(at / part) if links < _MAX_LINKS and self._sees(at) else ""
            if target:
                links += 1
                at = Path("/") if target.startswith("/") else at
                remaining = [each for each in Path(target).parts if each != "/"] + remaining
            else:
                at = at / part
        return at

    def _bind(self, path: Path, named: bool, main: bool) -> bool:
        """Add what has to be bound to execute PATH; False, with a sentence, if it may not be."""
        place = _installation(path)
        if place is not None and self.layout.exposed(place) and path.parent != place:
            # Such as ~/.local: not all that is in there, but what programs in its "bin" look for beside it.
            places = [path.parent, place / "lib"]
            if next(place.glob("lib/python3*/site-packages"), None):
                self.user_base = str(place)
        elif place is not None:
            places = [place]
        elif named:
            # Many programs look for their files beside the target of a link, so the link must stay one.
            places = [path.parent if path.is_symlink() and path.parent.name in _PROGRAM_DIRECTORIES else path]
        else:
            self._refuse(
                f"{path} is hidden from the service, and is not in an installation of an interpreter that Helm knows; "
                "add its directory to readable_paths"
            )
            return False
        if not all(self._add(each) for each in places):
            return False
        if main and path not in places and str(path.parent) not in self.search:
            self.search.append(str(path.parent))
        return True

    def _add(self, place: Path) -> bool:
        real = Path(os.path.realpath(place))
        if guard := self.layout.exposed(real) or self.layout.exposed(place):
            self._refuse(f"{place}, which its program needs, may not be shown to it: {_overlap(place, guard)}")
            return False
        for other in self._others:
            inside = real.is_relative_to(other) and not (real / VENV_FILE).is_file()
            if inside or other.is_relative_to(real):
                self._refuse(
                    f"{place}, which its program needs, has files of another service ({other}); to show them "
                    "nevertheless, add it to readable_paths"
                )
                return False
        self.places.append(place)
        return True

    def _refuse(self, sentence: str) -> None:
        self.refused.append((self.setting, sentence))

    def _sees(self, path: Path) -> bool:
        for seen in (*self._own, *self._readable, *self.places):
            if path.is_relative_to(seen):
                return True
        return not any(path.is_relative_to(root) for root in self._hidden)

    def _writable(self, path: Path) -> bool:
        return any(path.is_relative_to(own) for own in self._own)


def _whole(directory: Path, layout: Layout) -> Path:
    """Return the directory of a service; where that is the version of a module, all that the module has."""
    module = layout.module_of(directory)
    return directory if module is None else module.root


def _installation(path: Path) -> Path | None:
    """Return the directory of the installation that the program PATH belongs to, if it is one of an interpreter."""
    folder = path.parent
    if folder.name == "shims":
        return folder.parent
    if folder.name in _PROGRAM_DIRECTORIES:
        prefix = folder.parent
        if any(next(prefix.glob(landmark), None) for landmark in _LANDMARKS):
            return prefix
    # .NET has its program at the top.
    return folder if (folder / "host/fxr").is_dir() else None


def _link(path: Path) -> str:
    """Return the target of a symbolic link; empty if PATH is none."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _home_in(file: Path) -> Path | None:
    """Return the directory of the base interpreter that a ``pyvenv.cfg`` names, or None if there is none."""
    for line in head_of(file).decode("utf-8", "replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip().lower() == "home" and value.strip().startswith("/"):
            return Path(os.path.normpath(value.strip()))
    return None


def search_path(needs: Needs) -> Mapping[str, str]:
    """Return the environment variables by which a service finds the programs of its own environment."""
    found = {"PATH": ":".join((*needs.search, *SYSTEM_PATH))} if needs.search else {}
    if needs.user_base:
        found["PYTHONUSERBASE"] = needs.user_base
    return {**found, "VIRTUAL_ENV": needs.virtual_environment} if needs.virtual_environment else found
