"""Creating the virtual environment of a version in its directory, with packages by pip, and checking it.

All of this runs in a sandbox, since packages run their own code during installation.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.model.errors import ModuleError
from helmd.model.layout import ModulePlaces
from helmd.model.modules.settings import ENVIRONMENT
from helmd.model.suite.service import Install
from helmd.modules.sandbox import BuildSandbox, Ran, TakeLine, run_in
from helmd.modules.snapshot import remove_tree

_FACTS = "import sys; print('%d.%d' % sys.version_info[:2]); import venv, ensurepip"
_SECONDS = 20.0
_NAMES = re.compile(r"python3(\.[0-9]{1,2})?\Z")
_PLACES = ("/usr/bin", "/usr/local/bin")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python interpreter for virtual environments. ``with_pip`` says whether it can install pip into them."""

    path: str
    version: tuple[int, int]
    with_pip: bool


def find_interpreter(name: str, install: Install, needs_pip: bool) -> Interpreter:
    """Return the interpreter for the module NAME. Raises ModuleError, with the available ones."""
    candidates = [install.interpreter] if install.interpreter else _installed()
    found = [each for each in map(_asked, candidates) if each is not None]
    oldest = python_number(install.python)
    fitting = [each for each in found if each.version >= oldest]
    if not fitting:
        wanted = install.interpreter or f"Python {install.python or '3'} or later"
        has = ", ".join(".".join(map(str, each.version)) for each in found) or "none"
        raise ModuleError(
            f"{name} needs {wanted}, and this machine has {has}",
            hint=(
                f'Either install such a Python and name it: install.interpreter = "/opt/python/bin/python3" in '
                f"[services.{name}] of services.toml; or use a release of Debian that has it (Debian 13 has 3.13); "
                f"or leave {name} out."
            ),
        )
    chosen = next((each for each in fitting if each.with_pip or not needs_pip), None)
    if chosen is None:
        raise ModuleError(
            f"{fitting[0].path} can't make virtual environments with pip",
            hint="Install what it lacks: sudo apt install python3-venv",
        )
    return chosen


def python_number(text: str) -> tuple[int, int]:
    """Parse a version such as ``3.12``; an empty text becomes the lowest one."""
    major, _, minor = text.partition(".")
    return (int(major), int(minor or 0)) if text else (3, 0)


def _installed() -> list[str]:
    """Return the interpreters of the system, its own first, then the newest."""
    found = []
    for place in _PLACES:
        try:
            found += [f"{place}/{name}" for name in os.listdir(place) if _NAMES.match(name)]
        except OSError:
            continue
    return sorted(found, key=lambda path: (not path.endswith("/python3"), [-number for number in _minor(path)]))


def _minor(path: str) -> Iterable[int]:
    return [int(number) for number in re.findall(r"[0-9]+", path.rpartition("/")[2])]


def _asked(program: str) -> Interpreter | None:
    path = program if program.startswith("/") else shutil.which(program, path=":".join(_PLACES))
    if not path:
        return None
    try:
        done = subprocess.run(
            [path, "-I", "-c", _FACTS], capture_output=True, text=True, timeout=_SECONDS, check=False, cwd="/"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"([0-9]+)\.([0-9]+)\n", done.stdout)
    return Interpreter(path, (int(found[1]), int(found[2])), done.returncode == 0) if found else None


@dataclass(frozen=True, slots=True)
class EnvironmentBuild:
    """Builds the environment of one version in its ``directory``."""

    places: ModulePlaces
    version: str
    install: Install
    interpreter: Interpreter
    sandbox: BuildSandbox
    line: TakeLine

    @property
    def directory(self) -> Path:
        return self.places.version(self.version)

    def _run(self, *words: str, network: bool = False, readable: tuple[Path, ...] = ()) -> Ran:
        scratch = self.places.cache / "tmp"
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        environment = {
            "PATH": f"{self.directory}/{ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "LC_ALL": "C.UTF-8",
            "PIP_CACHE_DIR": str(self.places.cache / "pip"),
            "PIP_NO_INPUT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        base = Path(self.interpreter.path).parent.parent
        hidden = not base.is_relative_to("/usr")
        sandbox = replace(
            self.sandbox,
            directory=self.directory,
            writable=(self.directory, self.places.cache),
            readable=(*readable, *((base,) if hidden else ())),
            network=network,
            environment=environment,
        )
        return run_in(sandbox, words, self.line)

    def build(self) -> None:
        """Build the environment. Raises ModuleError with the failed step."""
        # Files left by a failed version would be used as pip's configuration.
        remove_tree(self.places.cache / "tmp")
        requirements = self.directory / self.install.requirements
        with_pip = requirements.is_file() and not requirements.is_symlink()
        options = ["--system-site-packages"] if self.install.system_packages else []
        options += [] if with_pip else ["--without-pip"]
        made = self._run(self.interpreter.path, "-I", "-m", "venv", "--symlinks", *options, ENVIRONMENT)
        if not made.good:
            raise _failed("its virtual environment could not be made", made)
        python = f"{self.directory}/{ENVIRONMENT}/bin/python"
        if with_pip:
            self._install(python)
        # Installed packages were compiled by pip.
        skipped = rf"^\./{ENVIRONMENT}/"
        compiled = self._run(python, "-I", "-m", "compileall", "-q", "-j", "1", "-x", skipped, ".")
        if not compiled.good:
            raise _failed("its programs could not be compiled", compiled)
        remove_tree(self.places.cache / "tmp")

    def _install(self, python: str) -> None:
        words = [python, "-I", "-m", "pip", "install", "--progress-bar=off", "-r", self.install.requirements]
        readable: tuple[Path, ...] = ()
        if self.install.constraints:
            file = self.places.versions / f"{self.version}.constraints"
            write_atomically(file, "".join(f"{each}\n" for each in self.install.constraints), 0o600)
            readable = (file,)
            words += ["-c", str(file)]
        installed = self._run(*words, network=True, readable=readable)
        if not installed.good:
            raise _failed("its packages could not be installed", installed)
        checked = self._run(python, "-I", "-m", "pip", "check")
        if not checked.good:
            raise _failed("its packages do not fit together", checked)


def _failed(sentence: str, ran: Ran) -> ModuleError:
    return ModuleError(f"{sentence}: {ran.why}", lines=ran.tail[-10:])
