"""Rendered units: what stands in them for each kind and mode, read back as systemd would, and by systemd-analyze."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.layout import Layout, layout
from helmd.model.suite.composition import whole_suite
from helmd.model.suite.names import MODES, Mode
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry, Service
from helmd.systemd.host import Host
from helmd.systemd.installed import is_ours, mode_of, verify_units
from helmd.systemd.render import Setup, render, render_store_cluster, template_environment
from tests.catalogue import CATALOGUE
from tests.unit import systemd_syntax as syntax
from tests.unit.test_quoting import VALUES

TOP = Path(__file__).resolve().parents[2]
TEMPLATES = template_environment(TOP / "units")
REGISTRY = """
[services.keycloak]
[services.core]
environment = { BOTH = "both", LEVEL = "base" }
development.environment = { LEVEL = "debug" }
production.environment = { LEVEL = "error", ONLY = "production" }
production.start_command = ["pyenv/bin/gunicorn", "--workers", "4"]
[services.codex]
limits = { memory_high = "256M", memory_max = "512M", cpu_percent = 150, tasks = 64, open_files = 4096 }
restart = { policy = "always", delay = "250ms", burst = 3, within = "2min", stop_timeout = "7s" }
success_exit_status = [3, 4]
writable_paths = ["/srv/shared files"]
[services.job]
type = "command"
path = "~/my job"
start_command = ["bin/run", "--all"]
streams = "merged"
depends_on = ["mail", "core"]
[services.mail]
type = "external"
url = "https://mail.example"
"""


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Return an account whose services' programs exist, so that systemd-analyze has nothing to say about that."""
    home = tmp_path_factory.mktemp("home")
    for program in ("my job/bin/run", "bin/postgres"):
        (home / program).parent.mkdir(parents=True, exist_ok=True)
        (home / program).write_text("#!/bin/sh\n")
        (home / program).chmod(0o755)
    return layout({}, home, 1000, TOP)


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd-analyze --user wants to know one, as every login has it; a machine that only builds may have none."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def setup_of(account: Layout, user_namespaces: bool = True) -> Setup:
    given = {"keycloak": {"KC_DB": "postgres"}}
    binaries = account.home / "bin"
    databases = {"codex": "codex_db", "job": "job"}
    return Setup(account, Settings(), Host(252, user_namespaces), "hive", given, binaries, binaries, databases)


def suite(text: str = REGISTRY) -> Registry:
    return whole_suite(read_registry([CATALOGUE, ConfigSource("file", text)], {}), Settings())


def rendered(
    account: Layout, mode: Mode = "development", user_namespaces: bool = True, text: str = REGISTRY
) -> Mapping[str, str]:
    found, setup = suite(text), setup_of(account, user_namespaces)
    ours = {name: service for name, service in found.services.items() if not service.external}
    units = {
        f"hivematrix-{name}.service": render(service, found, mode, setup, TEMPLATES) for name, service in ours.items()
    }
    return {**units, "helmd-postgres.service": render_store_cluster(setup, TEMPLATES)}


def values(text: str, key: str) -> list[str]:
    return [value for _, name, value in syntax.assignments(text) if name == key]


def one(text: str, key: str) -> str:
    (value,) = values(text, key)
    return value


@pytest.mark.parametrize("user_namespaces", [True, False])
@pytest.mark.parametrize("mode", ["development", "production"])
def test_systemd_has_nothing_to_say(account: Layout, mode: Mode, user_namespaces: bool) -> None:
    units = rendered(account, mode, user_namespaces)
    assert len(units) == 6
    assert not verify_units(units)
    for text in units.values():
        assert is_ours(text) and mode_of(text) == (mode if "Service=helm\n" not in text else "development")


def test_a_unit_that_systemd_refuses_is_not_passed(account: Layout) -> None:
    units = dict(rendered(account))
    broken = units["hivematrix-core.service"]
    for change in (
        ("Type=exec", "Type=exce"),
        ("KillMode=mixed", "KilMode=mixed"),
        ("ExecStart=/usr", "ExecStart=/nusr"),
    ):
        assert change[0] in broken
        found = verify_units({**units, "hivematrix-core.service": broken.replace(*change)})
        assert list(found) == ["hivematrix-core.service"] and found["hivematrix-core.service"]


def test_verify_minds_only_what_it_was_given(account: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "systemd/user").mkdir(parents=True)
    (tmp_path / "systemd/user/hivematrix-postgres.service").write_text("[Service]\nType=nonsense\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert not verify_units({"hivematrix-core.service": rendered(account)["hivematrix-core.service"]})


def test_units_beside_are_read_where_others_depend_on_them_and_not_by_themselves() -> None:
    core = "[Unit]\nWants=hivematrix-desk.service\n[Service]\nExecStart=/bin/true\n"
    broken = "[Service]\nType=nonsense\nExecStart=/bin/true\n"
    beside = {"hivematrix-desk.service": "[Service]\nExecStart=/bin/true\n", "hivematrix-shop.service": broken}
    assert not verify_units({"hivematrix-core.service": core}, beside)
    beside["hivematrix-desk.service"] = broken
    assert list(verify_units({"hivematrix-core.service": core}, beside)) == ["hivematrix-desk.service"]


def test_modes_differ_in_environment_and_command(account: Layout) -> None:
    development, production = (
        rendered(account, mode)["hivematrix-core.service"] for mode in ("development", "production")
    )
    first, second = (syntax.environment(values(text, "Environment")) for text in (development, production))

    def helms(service: str) -> dict[str, str]:
        home, document = account.home_of(service), account.discovery_file
        return {"HOME": str(home), "HIVEMATRIX_SERVICES_JSON": str(document)}

    assert first == {
        **helms("core"),
        "HIVEMATRIX_MODE": "development", "PYTHONUNBUFFERED": "1", "FLASK_ENV": "development", "BOTH": "both",
        "LEVEL": "debug", "PORT": "5000",
    }  # fmt: skip
    assert second == {
        **helms("core"),
        "HIVEMATRIX_MODE": "production", "PYTHONUNBUFFERED": "1", "FLASK_ENV": "production", "BOTH": "both",
        "LEVEL": "error", "ONLY": "production", "PORT": "5000",
    }  # fmt: skip
    checkout = f"{account.data}/hivematrix-core"
    commands = [syntax.command(one(text, "ExecStart"), {}) for text in (development, production)]
    assert commands[0][-2:] == [f"{checkout}/pyenv/bin/python", "run.py"]
    assert commands[1][-3:] == [f"{checkout}/pyenv/bin/gunicorn", "--workers", "4"]
    keycloak = [rendered(account, mode)["hivematrix-keycloak.service"] for mode in ("development", "production")]
    assert one(keycloak[0], "ExecStart") != one(keycloak[1], "ExecStart")


def test_order_and_readiness(account: Layout) -> None:
    units = rendered(account)
    core = units["hivematrix-core.service"]
    assert values(core, "After") == values(core, "Wants") == ["hivematrix-keycloak.service"]
    assert (one(core, "PartOf"), one(core, "WantedBy")) == ("hivematrix.target", "hivematrix.target")
    probe = syntax.command(one(core, "ExecStartPost"), {})
    assert probe[0] == f"{TOP}/packaging/libexec/probe"
    assert "url=http://localhost:5000/.well-known/jwks.json" in probe and "within=60" in probe
    assert one(core, "TimeoutStartSec") == "65", "systemd gives up after the probe, which knows why"
    job = units["hivematrix-job.service"]
    assert values(job, "After") == ["hivematrix-core.service"], "an external service has no unit"
    waits = [f"{TOP}/packaging/libexec/wait-process"]
    assert syntax.command(one(job, "ExecStartPost"), {}) == waits, "there is nothing to ask"
    store = units["helmd-postgres.service"]
    assert not values(store, "PartOf") and one(store, "WantedBy") == "default.target"


def test_before_the_start(account: Layout) -> None:
    job = rendered(account)["hivematrix-job.service"]
    assert not values(job, "ExecStartPre"), "a command gets services.json only if it asks for it, and has no port"
    core = syntax.command(one(rendered(account)["hivematrix-core.service"], "ExecStartPre"), {})
    place = f"directory={account.data}/hivematrix-core"
    assert core[1:] == ["port=5000", "host=localhost", f"discovery={account.discovery_file}", place]


def test_commands_before_the_start_and_for_a_reload(account: Layout) -> None:
    text = (
        REGISTRY
        + """
[services.shop]
port = 6100
pre_start = ["./migrate.sh", "--to", "$MAINPID"]
reload_command = ["kill", "-HUP", "$MAINPID", "$OTHER"]
"""
    )
    unit = rendered(account, text=text)["hivematrix-shop.service"]
    first, second = values(unit, "ExecStartPre")
    assert "prestart" in first
    assert second == f'{account.data}/hivematrix-shop/migrate.sh --to "$$MAINPID"'
    assert one(unit, "ExecReload") == 'kill -HUP $MAINPID "$$OTHER"'
    assert not values(rendered(account)["hivematrix-core.service"], "ExecReload")


def test_the_signal_that_asks_a_program_to_end(account: Layout) -> None:
    """systemd must not take a program for failed that has no handler of it; by the other three it never does."""
    shop = '[services.shop]\ntype = "command"\nstart_command = ["sleep", "9"]\n'
    quit, wait = (f'{shop}stop_signal = "{signal}"\nsuccess_exit_status = [30]\n' for signal in ("quit", "SIGINT"))
    first, second = (rendered(account, text=text)["hivematrix-shop.service"] for text in (quit, wait))
    assert (one(first, "KillSignal"), one(first, "SuccessExitStatus")) == ("SIGQUIT", "30 SIGQUIT")
    assert (one(second, "KillSignal"), one(second, "SuccessExitStatus")) == ("SIGINT", "30")
    usual = rendered(account, text=shop)["hivematrix-shop.service"]
    assert not values(usual, "KillSignal") and not values(usual, "SuccessExitStatus")
    units = {**rendered(account, text=quit), "hivematrix-shop.service": first}
    assert not [name for name in verify_units(units) if name == "hivematrix-shop.service"]


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ('start_command = ["sleep", "9"]', "mixed"),
        ('start_command = ["sh", "-c", "cd /srv && ./serve"]', "control-group"),
        ('start_command = ["sh", "-c", "cd /srv && exec ./serve"]', "mixed"),
        ('start_command = ["~/my job/bin/run"]', "control-group"),
        ('path = "~/my job"\nstart_command = ["bin/run"]\nstreams = "merged"', "control-group"),
    ],
)
@pytest.mark.parametrize("kind", ["command", "oneshot", "python"])
def test_who_is_asked_to_end(account: Layout, settings: str, mode: str, kind: str) -> None:
    """A shell that waits for its program does not pass the signal on."""
    port = "port = 6100\n" if kind == "python" else ""
    unit = rendered(account, text=f'[services.shop]\ntype = "{kind}"\n{port}{settings}\n')["hivematrix-shop.service"]
    assert one(unit, "KillMode") == mode


def test_streams(account: Layout) -> None:
    units = rendered(account)
    core = syntax.command(one(units["hivematrix-core.service"], "ExecStart"), {})
    assert core[:6] == [
        "/usr/bin/systemd-cat", "-t", "hivematrix-core", "-p", "info", "--stderr-priority=notice"
    ]  # fmt: skip
    job = syntax.command(one(units["hivematrix-job.service"], "ExecStart"), {})
    assert job == [f"{account.home}/my job/bin/run", "--all"]
    assert one(units["hivematrix-job.service"], "SyslogIdentifier") == "hivematrix-job"


def test_limits_and_restarts(account: Layout) -> None:
    codex = rendered(account)["hivematrix-codex.service"]
    expected = {
        "MemoryHigh": str(256 << 20), "MemoryMax": str(512 << 20), "CPUQuota": "150%", "TasksMax": "64",
        "LimitNOFILE": "4096", "Restart": "always", "RestartSec": "250ms", "StartLimitBurst": "3",
        "StartLimitIntervalSec": "120", "TimeoutStopSec": "7", "SuccessExitStatus": "3 4", "OOMPolicy": "stop",
    }  # fmt: skip
    assert {key: one(codex, key) for key in expected} == expected
    core = rendered(account)["hivematrix-core.service"]
    assert not any(values(core, key) for key in ("MemoryHigh", "MemoryMax", "CPUQuota", "TasksMax", "LimitNOFILE"))
    assert one(rendered(account)["hivematrix-keycloak.service"], "SuccessExitStatus") == "143"


def test_secrets_are_only_pointed_to(account: Layout) -> None:
    for name, text in rendered(account).items():
        service = name.removeprefix("hivematrix-").removesuffix(".service")
        if service in ("core", "codex", "job", "keycloak"):
            assert one(text, "EnvironmentFile") == f"-{account.secrets}/{service}.env"
        assert "PASSWORD" not in text
    assert 'Environment="KC_DB=postgres"' in rendered(account)["hivematrix-keycloak.service"]


def test_the_database_is_seen_by_those_that_have_one_only(account: Layout) -> None:
    """Its socket's directory; and the passwords by PostgreSQL alone, which sets them when it starts."""
    socket, passfile = str(account.suite_socket), str(account.suite_passfile)
    seen = {
        name: {word.removeprefix("-") for key in ("BindPaths", "BindReadOnlyPaths")
               for value in values(text, key) for word in syntax.words(value)}
        for name, text in rendered(account).items()
    }  # fmt: skip
    assert {name for name, places in seen.items() if socket in places} == {
        "hivematrix-codex.service", "hivematrix-postgres.service"
    }  # fmt: skip
    assert {name for name, places in seen.items() if passfile in places} == {"hivematrix-postgres.service"}
    everything = {place for places in seen.values() for place in places}
    hidden = (account.secrets, account.runtime, account.config, account.state)
    assert not everything & {str(place) for place in hidden}
    assert [name for name, places in seen.items() if str(account.store_socket) in places] == ["helmd-postgres.service"]
    provision = syntax.command(one(rendered(account)["hivematrix-postgres.service"], "ExecStartPost"), {})
    assert f"passfile={passfile}" in provision and provision[-2:] == ["codex:codex_db", "job"]


def test_postgresql_is_given_the_number_of_connections_of_a_service(account: Layout) -> None:
    registry = suite(REGISTRY.replace("[services.codex]", "[services.codex]\ndatabase_connections = 7"))
    text = render(registry["postgres"], registry, "development", setup_of(account), TEMPLATES)
    assert "codex:codex_db:7" in syntax.command(one(text, "ExecStartPost"), {})


def test_keycloak_alone_sees_the_certificate_of_postgresql(account: Layout) -> None:
    text = rendered(account)["hivematrix-keycloak.service"]
    certificate = str(account.suite_certificate)
    assert f"-{certificate}" in [word for value in values(text, "BindReadOnlyPaths") for word in syntax.words(value)]
    others = [each for name, each in rendered(account).items() if "keycloak" not in name and "postgres" not in name]
    assert not any(certificate in each for each in others)


NEEDS_NAMESPACES = {
    "PrivateUsers", "CapabilityBoundingSet", "ProtectSystem", "ProtectHome", "TemporaryFileSystem", "BindPaths",
    "PrivateTmp", "InaccessiblePaths", "PrivateDevices", "ProtectControlGroups",
}  # fmt: skip
EFFECTIVE_ALONE = {"NoNewPrivileges", "RestrictNamespaces", "SystemCallFilter", "LockPersonality", "UMask"}


def keys(text: str) -> set[str]:
    return {key for _, key, _ in syntax.assignments(text)}


def test_hardening_is_what_the_host_allows_and_the_service_wants(account: Layout) -> None:
    strict = {"core", "postgres", "helm", "keycloak"}
    for text in rendered(account).values():
        (name,) = values(text, "Service")
        assert keys(text) >= NEEDS_NAMESPACES | EFFECTIVE_ALONE
        assert ("MemoryDenyWriteExecute" in keys(text)) == (name in strict - {"keycloak"}), "Java writes code"
        assert ("AF_NETLINK" in one(text, "RestrictAddressFamilies")) == (name not in strict)
        assert ("~@privileged" in values(text, "SystemCallFilter")) == (name in strict)
    for text in rendered(account, user_namespaces=False).values():
        assert keys(text) >= EFFECTIVE_ALONE and not keys(text) & NEEDS_NAMESPACES
    found = suite()
    core = found["core"]
    levels: tuple[tuple[Literal["basic", "off"], set[str]], ...] = (("basic", EFFECTIVE_ALONE), ("off", set()))
    for level, expected in levels:
        text = render(replace(core, hardening=level), found, "development", setup_of(account), TEMPLATES)
        assert keys(text) & (NEEDS_NAMESPACES | EFFECTIVE_ALONE) == expected


def test_a_service_sees_its_own_directories(account: Layout) -> None:
    codex = rendered(account)["hivematrix-codex.service"]
    bound = [syntax.specifiers(word) for value in values(codex, "BindPaths") for word in syntax.words(value)]
    assert bound == [f"{account.data}/hivematrix-codex", "/srv/shared files", str(account.home_of("codex"))]
    readable = [word for value in values(codex, "BindReadOnlyPaths") for word in syntax.words(value)]
    assert f"-{account.discovery_file}" in readable and not any("secrets" in word for word in readable)


def test_rendering_is_the_same_every_time(account: Layout) -> None:
    assert rendered(account) == rendered(account)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    variables=st.dictionaries(st.from_regex("[A-Z_]{1,8}", fullmatch=True), VALUES, max_size=3),
    words=st.lists(VALUES, max_size=3),
    description=VALUES,
    merged=st.booleans(),
)
def test_whatever_the_registry_says_stays_in_its_place(
    account: Layout, variables: dict[str, str], words: list[str], description: str, merged: bool
) -> None:
    plain = replace(suite()["job"], depends_on=(), streams="merged" if merged else "split")
    nasty = replace(
        plain, environment=variables, start_command=("bin/run", *words), description=description.replace("\t", " ")
    )
    registry = Registry({"job": nasty})
    before = render(plain, registry, "production", setup_of(account), TEMPLATES)
    after = render(nasty, registry, "production", setup_of(account), TEMPLATES)
    home, document = str(account.home_of("job")), str(account.discovery_file)
    added = {"HOME": home, "HIVEMATRIX_SERVICES_JSON": document, "HIVEMATRIX_MODE": "production"}
    added |= {"PYTHONUNBUFFERED": "1", **variables}
    assert syntax.environment(values(after, "Environment")) == added
    assert syntax.command(one(after, "ExecStart"), {"HOME": "/x"})[-len(words) - 1 :] == [
        f"{account.home}/my job/bin/run", *words
    ]  # fmt: skip
    assert syntax.specifiers(one(after, "Description")) == f"HiveMatrix job: {nasty.description}".strip()
    changed = {"Environment", "UnsetEnvironment", "ExecStart", "Description"}
    assert [line for line in syntax.assignments(after) if line[1] not in changed] == [
        line for line in syntax.assignments(before) if line[1] not in changed
    ]


def test_systemd_takes_nasty_values(account: Layout) -> None:
    nasty = "%h %n $HOME ${X} $$ \"q\" 'q' \\ \\n ; # \t é 日本 🐝"
    service = replace(
        suite()["job"],
        depends_on=(),
        description=nasty.replace("\t", " ") + " \\",
        environment={"NASTY": nasty, "LONG": "x" * 32768},
        start_command=("bin/run", *nasty.split(" "), nasty),
    )
    for streams in ("split", "merged"):
        text = render(
            replace(service, streams=streams), Registry({"job": service}), "production", setup_of(account), TEMPLATES
        )
        assert not verify_units({"hivematrix-job.service": text})


def test_a_home_with_a_blank_and_a_percent_sign(account: Layout, tmp_path: Path) -> None:
    odd = layout({}, tmp_path / "50% of a home", os.getuid(), TOP)
    (odd.home / "job").mkdir(parents=True)
    service = Service("job", "command", path="~/job", start_command=("/bin/true",))
    text = render(service, Registry({"job": service}), "production", setup_of(odd), TEMPLATES)
    assert not verify_units({"hivematrix-job.service": text})
    assert syntax.specifiers(one(text, "WorkingDirectory")) == f"{odd.home}/job"


def test_a_python_service_finds_its_environment(tmp_path: Path) -> None:
    """PATH and VIRTUAL_ENV, for it and its subprocesses; what the admin sets comes first."""
    account = layout({}, tmp_path, 1000, TOP)
    directory = account.data / "hivematrix-core"
    (directory / "pyenv/bin").mkdir(parents=True)
    (directory / "pyenv/pyvenv.cfg").write_text("home = /usr/bin\n")
    (directory / "pyenv/bin/python").symlink_to("/usr/bin/python3")
    for text, path in (("", f"{directory}/pyenv/bin:/usr/local/bin:/usr/bin:/bin"), ('PATH = "/opt/bin"', "/opt/bin")):
        found = suite(f"[services.core]\ndepends_on = []\nenvironment = {{ {text} }}\n")
        for mode in MODES:
            unit = render(found["core"], found, mode, setup_of(account), TEMPLATES)
            seen = syntax.environment(values(unit, "Environment"))
            assert (seen["PATH"], seen["VIRTUAL_ENV"]) == (path, f"{directory}/pyenv")


def test_what_the_admin_sets_is_not_unset(account: Layout) -> None:
    service = replace(suite()["job"], depends_on=(), environment={"PYTHONPATH": "lib", "HOME": "/srv/home"})
    text = render(service, Registry({"job": service}), "production", setup_of(account), TEMPLATES)
    seen = syntax.environment(values(text, "Environment"))
    assert (seen["PYTHONPATH"], seen["HOME"]) == ("lib", "/srv/home")
    assert "PYTHONPATH" not in one(text, "UnsetEnvironment").split()
    assert {"PYTHONHOME", "XDG_RUNTIME_DIR"} <= set(one(text, "UnsetEnvironment").split())


def test_directories_of_the_account_elsewhere_are_hidden_too(tmp_path: Path) -> None:
    elsewhere = {"XDG_CONFIG_HOME": "/srv/config", "XDG_STATE_HOME": "/srv/state", "XDG_DATA_HOME": "/srv/data"}
    account = layout(elsewhere, tmp_path, 1000, TOP)
    service = replace(suite()["job"], depends_on=())
    text = render(service, Registry({"job": service}), "production", setup_of(account), TEMPLATES)
    hidden = {value.partition(":")[0] for value in values(text, "TemporaryFileSystem")}
    assert {str(tmp_path), "/srv/config/hivematrix", "/srv/state/hivematrix", "/srv/data/hivematrix"} <= hidden
