"""What a program needs of hidden directories is found and bound, what may not be shown is refused."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from helmd.model.config.toml_tables import ConfigSource
from helmd.model.layout import Layout, layout
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry
from helmd.operations.configuration.load import path_faults
from helmd.systemd.programs import Needs, needs_of, search_path

TOP = Path(__file__).resolve().parents[2]


@dataclass
class Home:
    """An account's home directory, and the ways in which people install interpreters there."""

    path: Path
    layout: Layout

    def file(self, name: str, text: str = "", mode: int = 0o644) -> Path:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place

    def program(self, name: str, text: str = "\x7fELF") -> Path:
        return self.file(name, text, 0o755)

    def link(self, name: str, target: str | Path) -> Path:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        return place

    def python(self, prefix: str, version: str = "3.12") -> Path:
        """Return an installation of Python, as pyenv and uv make it."""
        self.file(f"{prefix}/lib/python{version}/os.py")
        program = self.program(f"{prefix}/bin/python{version}")
        self.link(f"{prefix}/bin/python3", f"python{version}")
        return program

    def environment(self, prefix: str, base: Path) -> Path:
        """Return a virtual environment on the interpreter BASE, as venv makes it."""
        self.file(f"{prefix}/pyvenv.cfg", f"home = {base.parent}\nversion = 3.12.1\n")
        self.link(f"{prefix}/bin/python", base)
        return self.link(f"{prefix}/bin/python3", "python")

    def registry(self, text: str, more: str = "") -> Registry:
        service = f'[services.app]\ntype = "command"\npath = "~/app"\n{text}\n{more}'
        return read_registry([ConfigSource("file", service)], {})

    def needs(self, text: str, more: str = "") -> Needs:
        registry = self.registry(text, more)
        return needs_of(registry["app"], "development", registry, self.layout)

    def faults(self, text: str, more: str = "") -> list[str]:
        return [str(fault) for fault in path_faults(self.registry(text, more), self.layout)]

    def under(self, *names: str) -> tuple[str, ...]:
        return tuple(str(self.path / name) for name in names)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    path = tmp_path / "home"
    (path / "app").mkdir(parents=True)
    return Home(path, layout({}, path, 1000, TOP))


SYSTEM = Path("/usr/bin/python3")


def command(program: str | Path) -> str:
    return f'start_command = ["{program}", "app.py"]'


def test_a_program_below_the_home_directory(home: Home) -> None:
    """ "~/" means what it does in path; it is shown to the service."""
    home.program("bin/run", "#!/bin/sh\n")
    home.program("app/bin/run", "#!/bin/sh\n")
    for setting in ("start_command", "pre_start", "reload_command"):
        given = f'{setting} = ["~/bin/run"]' + ('\nstart_command = ["sleep"]' if setting != "start_command" else "")
        assert home.needs(given).places == home.under("bin/run"), setting
        assert home.needs(given.replace("~/bin", "bin")).places == (), setting


def test_a_program_of_the_system_needs_nothing(home: Home) -> None:
    assert home.needs(command(SYSTEM)) == Needs() == home.needs('start_command = ["sleep", "1"]')
    home.program("app/bin/run")
    assert home.needs(command("bin/run")) == Needs()


def test_a_virtual_environment_elsewhere(home: Home) -> None:
    home.environment("venvs/app", SYSTEM)
    needs = home.needs(command(home.path / "venvs/app/bin/python"))
    assert needs == Needs(home.under("venvs/app"), home.under("venvs/app/bin"), str(home.path / "venvs/app"))
    found = search_path(needs)
    assert found == {
        "PATH": f"{home.path}/venvs/app/bin:/usr/local/bin:/usr/bin:/bin", "VIRTUAL_ENV": f"{home.path}/venvs/app"
    }  # fmt: skip


def test_pyenv_is_a_link(home: Home) -> None:
    """The service's own directory has a link to an environment elsewhere."""
    home.environment("venvs/app", SYSTEM)
    home.link("app/pyenv", "../venvs/app")
    python = home.registry(command("sleep"), '[services.py]\nport = 5100\npath = "~/app"\n')
    for needs in (home.needs(command("pyenv/bin/python")), needs_of(python["py"], "production", python, home.layout)):
        assert needs.places == home.under("venvs/app")
        assert needs.virtual_environment == str(home.path / "app/pyenv")


@pytest.mark.parametrize(
    "prefix",
    [
        ".pyenv/versions/3.12.1",
        ".local/share/uv/python/cpython-3.12.1-linux-x86_64-gnu",
        "miniconda3/envs/app",
        "opt/python",
    ],
)
def test_the_base_of_an_environment_below_the_home_directory(home: Home, prefix: str) -> None:
    home.environment("app/pyenv", home.python(prefix))
    needs = home.needs(command("pyenv/bin/python"))
    assert needs.places == home.under(prefix)
    assert needs.search == home.under("app/pyenv/bin"), "programs of the base are not its own"


def test_the_base_is_named_through_a_link(home: Home) -> None:
    """As uv names minor versions: what the environment names must exist under that name."""
    home.python(".local/share/uv/python/cpython-3.12.7")
    link = home.link(".local/share/uv/python/cpython-3.12", "cpython-3.12.7")
    home.environment("app/pyenv", link / "bin/python3.12")
    assert home.needs(command("pyenv/bin/python")).places == (str(link),)


def test_what_pipx_and_poetry_install(home: Home) -> None:
    home.environment(".local/share/pipx/venvs/tool", home.python(".pyenv/versions/3.12.1"))
    script = f"#!{home.path}/.local/share/pipx/venvs/tool/bin/python\nimport tool\n"
    program = home.program(".local/share/pipx/venvs/tool/bin/tool", script)
    link = home.link(".local/bin/tool", program)
    needs = home.needs(command(link))
    assert needs.places == home.under(".local/bin", ".local/share/pipx/venvs/tool", ".pyenv/versions/3.12.1")
    assert needs.virtual_environment == str(home.path / ".local/share/pipx/venvs/tool")
    assert needs.refused == ()


@pytest.mark.parametrize(
    "path", ["#!{}/bin/python", "#!{}/bin/python -I", '#!/bin/sh\n\'\'\'exec\' "{}/bin/python" "$0" "$@"']
)
def test_the_interpreter_of_a_script_in_its_own_directory(home: Home, path: str) -> None:
    prefix = home.path / "venvs/with blank" if '"' in path else home.path / "venvs/app"
    home.environment(str(prefix.relative_to(home.path)), SYSTEM)
    home.program("app/bin/serve", path.format(prefix) + "\n")
    assert home.needs(command("bin/serve")).places == (str(prefix),)


@pytest.mark.parametrize("setting", ["pre_start", "reload_command"])
def test_commands_beside_the_main_one(home: Home, setting: str) -> None:
    """Their interpreters and bases are bound as well; PATH stays that of the main program."""
    base = home.python(".pyenv/versions/3.12.1")
    home.environment("venvs/tools", base)
    home.program("app/migrate", f"#!{home.path}/venvs/tools/bin/python\n")
    home.program("bin/notify")
    main = command(SYSTEM)
    needs = home.needs(f'{main}\n{setting} = ["./migrate", "--all"]')
    assert needs == Needs(home.under(".pyenv/versions/3.12.1", "venvs/tools"))
    assert home.needs(f'{main}\n{setting} = ["~/bin/notify"]'.replace("~", str(home.path))).places == home.under(
        "bin/notify"
    )
    # Of the environment of the main program, by its bare name.
    home.environment("app/pyenv", base)
    home.program("app/pyenv/bin/flask", f"#!{home.path}/app/pyenv/bin/python\n")
    text = f'start_command = ["pyenv/bin/python", "app.py"]\n{setting} = ["flask", "db", "upgrade"]'
    assert home.faults(text) == [] and home.needs(text).places == home.under(".pyenv/versions/3.12.1")
    # By the PATH that the configuration gives it.
    given = f'environment = {{ PATH = "{home.path}/bin:/usr/bin" }}'
    assert home.needs(f'{main}\n{setting} = ["notify"]\n{given}').places == home.under("bin")
    assert home.needs(f'{main}\n{setting} = ["true"]') == Needs()
    assert "services.app." + setting in home.faults(f'{main}\n{setting} = ["flask-of-nobody"]')[0]


@pytest.mark.parametrize("setting", ["pre_start", "reload_command"])
def test_commands_beside_the_main_one_show_no_other_files(home: Home, setting: str) -> None:
    home.program("private/bin/tool")
    home.program("app/migrate", f"#!{home.path}/private/bin/tool\n")
    (fault,) = home.faults(f'{command(SYSTEM)}\n{setting} = ["./migrate"]')
    assert f"services.app.{setting}" in fault and "is hidden from the service" in fault


def test_node_of_nvm_with_what_lies_beside_it(home: Home) -> None:
    version = ".nvm/versions/node/v20.1.0"
    home.program(f"{version}/bin/node")
    home.program(f"{version}/lib/node_modules/npm/bin/npm-cli.js", "#!/usr/bin/env node\n")
    npm = home.link(f"{version}/bin/npm", "../lib/node_modules/npm/bin/npm-cli.js")
    for program in (home.path / version / "bin/node", npm):
        needs = home.needs(command(program))
        assert (needs.places, needs.search) == (home.under(version), home.under(f"{version}/bin"))
    # Named by the service's own PATH, from which systemd-cat(1) takes the program.
    given = f'environment = {{ PATH = "{home.path}/{version}/bin:/usr/bin" }}'
    assert home.needs(f'start_command = ["node", "app.js"]\n{given}').places == home.under(version)


@pytest.mark.parametrize(
    ("program", "beside", "place"),
    [
        (".sdkman/candidates/java/17/bin/java", ".sdkman/candidates/java/17/lib/modules", ".sdkman/candidates/java/17"),
        (".dotnet/dotnet", ".dotnet/host/fxr/8.0.1/libhostfxr.so", ".dotnet"),
        ("pypy3.10/bin/pypy3", "pypy3.10/lib/pypy3.10/os.py", "pypy3.10"),
        (".rbenv/versions/3.2.0/bin/ruby", ".rbenv/versions/3.2.0/lib/ruby/3.2.0/set.rb", ".rbenv/versions/3.2.0"),
        (".pyenv/shims/python", ".pyenv/libexec/pyenv", ".pyenv"),
        ("go/bin/server", "go/src/server.go", "go/bin/server"),
        (".local/bin/caddy", ".local/share/other", ".local/bin/caddy"),
        ("tools/server", "tools/other", "tools/server"),
    ],
)
def test_other_programs_with_what_lies_beside_them(home: Home, program: str, beside: str, place: str) -> None:
    home.file(beside)
    needs = home.needs(command(home.program(program)))
    assert needs.places == home.under(place) and not needs.refused


def test_npm_installs_below_a_directory_with_much_else(home: Home) -> None:
    """~/.local has Helm's own state as well, so only the two parts that such a program needs are bound."""
    home.file(".local/state/hivematrix/host.json")
    home.program(".local/lib/node_modules/app/cli.js", "#!/usr/bin/env sh\n")
    program = home.link(".local/bin/app", "../lib/node_modules/app/cli.js")
    needs = home.needs(command(program))
    assert needs.places == home.under(".local/bin", ".local/lib") and not needs.refused


def test_pip_installs_for_the_account(home: Home) -> None:
    """``pip install --user`` puts packages where Python looks by HOME, which is another one for the service."""
    home.file(".local/lib/python3.12/site-packages/app/__init__.py")
    home.file(".local/state/hivematrix/host.json")
    needs = home.needs(command(home.program(".local/bin/app", "#!/usr/bin/python3\n")))
    assert needs.places == home.under(".local/bin", ".local/lib") and not needs.refused
    assert search_path(needs)["PYTHONUSERBASE"] == str(home.path / ".local")


GUARDED = [
    "", ".ssh", ".ssh/sub", ".gnupg", ".config", ".config/hivematrix", ".config/hivematrix/secrets", ".local",
    ".local/state/hivematrix/postgres-suite", ".local/share/hivematrix", ".local/share", ".local/share/systemd/user",
]  # fmt: skip


@pytest.mark.parametrize("name", GUARDED)
def test_readable_paths_are_refused_where_they_show_what_acts_as_the_account(home: Home, name: str) -> None:
    text = f'{command(SYSTEM)}\nreadable_paths = ["~/{name}"]'
    (home.path / name).mkdir(parents=True, exist_ok=True)
    (fault,) = home.faults(text)
    assert "services.app.readable_paths" in fault and "may not be shown to a service" in fault
    # By another name as well.
    home.link("innocent", home.path / name)
    (fault,) = home.faults(f'{command(SYSTEM)}\nreadable_paths = ["~/innocent"]')
    assert "may not be shown to a service" in fault


@pytest.mark.parametrize("place", ["~/data", "/srv", "/run", "hivematrix-core", "~/.aws", "~/.config/app"])
def test_other_readable_paths_are_taken(home: Home, place: str) -> None:
    expected = place in ("/run",)
    assert bool(home.faults(f'{command(SYSTEM)}\nreadable_paths = ["{place}"]')) == expected


def attack_by_link(home: Home) -> str:
    home.link("app/pyenv", home.path / ".ssh")
    return command("pyenv/bin/python")


def attack_by_script(home: Home) -> str:
    home.program("app/run", f"#!{home.path}/private/bin/tool\n")
    return command("./run")


def attack_by_environment(home: Home) -> str:
    home.environment("app/pyenv", home.program("private/bin/python3"))
    return command("pyenv/bin/python")


def attack_by_another_service(home: Home) -> str:
    home.python("other/keys")
    home.environment("app/pyenv", home.path / "other/keys/bin/python3")
    return command("pyenv/bin/python")


def attack_by_the_account_itself(home: Home) -> str:
    home.file("lib/node_modules/x/index.js")
    home.program("app/run", f"#!{home.program('.ssh/bin/node')}\n")
    home.file(".ssh/lib/node_modules/x/index.js")
    return command("./run")


@pytest.mark.parametrize(
    "attack",
    [attack_by_link, attack_by_script, attack_by_environment, attack_by_another_service, attack_by_the_account_itself],
)
def test_a_service_cannot_have_other_files_bound(home: Home, attack: Callable[[Home], str]) -> None:
    """What its own directory says, where it may write, shows it nothing but interpreters."""
    home.program(".ssh/bin/python")
    home.program("private/bin/tool")
    home.file("private/key")
    text = attack(home)
    more = '[services.other]\ntype = "command"\npath = "~/other"\nstart_command = ["sleep"]\n'
    (home.path / "other").mkdir(exist_ok=True)
    needs = home.needs(text, more)
    assert needs.places == () and len(needs.refused) == 1
    faults = home.faults(text, more)
    ((setting, sentence),) = needs.refused
    assert len(faults) == 1 and f"services.app.{setting}" in faults[0] and sentence in faults[0]
    # The configuration may name it, as long as it is not what acts as the account.
    if attack is attack_by_script:
        assert home.needs(f'{text}\nreadable_paths = ["~/private"]', more) == Needs()


def test_nothing_beside_the_versions_of_another_module_is_bound(home: Home) -> None:
    place = home.layout.modules / "core"
    key = place / "shared/keys/private.pem"
    key.parent.mkdir(parents=True)
    key.touch()
    (place / "versions/one").mkdir(parents=True)
    more = '[services.core]\ntype = "command"\npath = "modules/core/versions/one"\nstart_command = ["sleep"]\n'
    for text in (f'{command(SYSTEM)}\nenvironment.PATH = "{key.parent}"', command(key)):
        needs = home.needs(text, more)
        assert needs.places == () and "has files of another service" in needs.refused[0][1]
        assert len(home.faults(text, more)) == 1


def test_links_without_end(home: Home) -> None:
    home.link("app/one", "two")
    home.link("app/two", "one")
    home.program("app/loop", f"#!{home.path}/app/loop\n")
    home.link("app/deep", "/".join(["deep"] * 50))
    for name in ("one", "loop", "deep/x"):
        assert home.needs(command(f"./{name}")).places == ()


def test_what_cannot_be_read_is_no_script(home: Home) -> None:
    os.mkfifo(home.path / "app/pipe")
    home.file("app/pyenv/pyvenv.cfg/x")
    home.program("app/pyenv/bin/python", "#! \n")
    for name in ("pipe", "pyenv/bin/python", "none"):
        assert home.needs(command(f"./{name}")) == Needs()


def test_without_a_sandbox_nothing_is_hidden(home: Home) -> None:
    home.environment("venvs/app", home.python(".pyenv/versions/3.12.1"))
    for profile in ("basic", "off"):
        needs = home.needs(f'{command(home.path / "venvs/app/bin/python")}\nhardening = "{profile}"')
        assert needs == Needs((), home.under("venvs/app/bin"), str(home.path / "venvs/app"))
