"""Applying: nothing that another process did meanwhile is undone, and no new service is left without its database."""

import os
from pathlib import Path
from typing import cast

import pytest

from helmd.files.environment_file import read_environment_file
from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import ConfigurationError, LockedError
from helmd.model.layout import Layout, layout
from helmd.model.suite.composition import whole_suite
from helmd.model.suite.names import unit_of
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.configuration.apply import Change, apply, changes_for, rendered
from helmd.operations.configuration.databases import affects_databases, ensure_databases
from helmd.operations.configuration.homes import make_homes, remove_home
from helmd.postgres.binaries import newest
from helmd.postgres.configuration import ident_file
from helmd.postgres.passfile import passwords_in
from helmd.systemd.bus import Manager

POSTGRES = Change("hivematrix-postgres.service", "changed", "provision core", "provision core shop")
SHOP = Change("hivematrix-shop.service", "new", "", "shop")
CORE = Change("hivematrix-core.service", "same", "core", "core")
LEDGER = Change("hivematrix-ledger.service", "changed", "ledger", "ledger 2")


@pytest.fixture
def account(tmp_path: Path) -> Layout:
    made = layout({}, tmp_path, os.getuid(), tmp_path)
    made.config.mkdir(parents=True)
    made.units.mkdir(parents=True)
    return made


def test_a_new_service_brings_what_makes_its_database() -> None:
    found = [POSTGRES, SHOP, CORE, LEDGER]
    assert changes_for(found, {SHOP.unit}) == [POSTGRES, SHOP]
    assert changes_for(found, {CORE.unit}) == [CORE]
    assert changes_for([SHOP, CORE], {SHOP.unit}) == [SHOP]


def test_what_another_process_applied_meanwhile_stays(account: Layout) -> None:
    unit = account.unit_file(LEDGER.unit)
    unit.write_text("ledger 3")
    with pytest.raises(LockedError):
        # It is refused before the manager is asked for anything.
        apply([LEDGER], Registry({}), account, Settings(), cast(Manager, None))
    assert unit.read_text() == "ledger 3"


def test_what_is_written_is_verified_beside_what_stays(account: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that is installed as it should be was verified when it was written."""
    asked: list[tuple[dict[str, str], dict[str, str]]] = []

    def verify(units: dict[str, str], beside: dict[str, str]) -> dict[str, list[str]]:
        asked.append((units, beside))
        return {SHOP.unit: ["it is refused"], CORE.unit: ["not its own fault"]}

    monkeypatch.setattr("helmd.operations.configuration.apply.verify_units", verify)
    text = '[services.shop]\ntype = "command"\nstart_command = ["true"]\n'
    registry = read_registry([ConfigSource("test", text)], {})
    foreign = Change("hivematrix-other.service", "foreign", "theirs", "other")
    # Nothing is left to be done, so the manager is asked for nothing else.
    done = apply([SHOP, CORE, foreign], registry, account, Settings(), cast(Manager, Idle()))
    assert asked == [({SHOP.unit: "shop"}, {CORE.unit: "core"})]
    assert done.done == [] and [change.unit for change in done.refused] == [SHOP.unit]
    apply([CORE, foreign], registry, account, Settings(), cast(Manager, Idle()))
    assert len(asked) == 1, "nothing is written, nothing is verified"


def test_only_what_may_need_a_database_has_postgresql_asked_for_it() -> None:
    text = "[services.shop]\nport = 6000\ndatabase = true\n[services.desk]\nport = 6001\n"
    text += '[services.login]\ntype = "keycloak"\nport = 8080\n'
    registry = whole_suite(read_registry([ConfigSource("test", text)], {}), Settings())
    found = {name: affects_databases({unit_of(name)}, registry) for name in (*registry.names, "gone")}
    assert found == {"postgres": True, "shop": True, "desk": False, "login": True, "gone": False}
    assert affects_databases({unit_of("desk"), unit_of("shop")}, registry) and not affects_databases((), registry)


def test_a_cluster_that_is_stopped_learns_of_new_roles(account: Layout) -> None:
    account.suite_cluster.mkdir(parents=True)
    (account.suite_cluster / "PG_VERSION").write_text(f"{newest().major}\n")
    (account.suite_cluster / "pg_ident.conf").write_text(ident_file("me", {"postgres": None}))
    settings = Settings()
    shop = '[services.shop]\ntype = "python"\nport = 6000\ndatabase = true\n'
    registry = whole_suite(read_registry([ConfigSource("test", shop)], {}), settings)
    assert ensure_databases(registry, account, settings, UnitFacts) == (), "its databases are made when it starts"
    assert 'local "shop" "shop" scram-sha-256' in (account.suite_cluster / "pg_hba.conf").read_text()
    password = passwords_in(account.suite_passfile)["shop"]
    delivered = read_environment_file(account.secrets_file("shop"))
    assert delivered["DATABASE_URL"].startswith(f"postgresql://shop:{password}@/shop?host=")


class Idle:
    """A user manager in which nothing runs."""

    def facts(self, unit: str) -> UnitFacts:
        return UnitFacts(unit)


def test_python_services_learn_where_helmd_is_unless_the_admin_says_it(tmp_path: Path) -> None:
    account = layout({}, tmp_path, os.getuid(), Path(__file__).resolve().parents[2])
    names = ("shop", "desk", "mine", "apart")
    text = "".join(f'[services.{name}]\ntype = "python"\nport = {6000 + n}\n' for n, name in enumerate(names))
    text += '[services.other]\ntype = "command"\nstart_command = ["true"]\n'
    text += '[services.mine.environment]\nHELM_SERVICE_URL = "http://mine:1"\n'
    registry = read_registry([ConfigSource("test", text)], {})
    for name, url in (("desk", "http://localhost:5004"), ("apart", "https://elsewhere")):
        account.resolve(registry[name].path).mkdir(parents=True)
        (account.resolve(registry[name].path) / ".flaskenv").write_text(f"HELM_SERVICE_URL={url}\n")

    def found(settings: Settings) -> list[str]:
        units = rendered(registry, account, settings)
        lines = [line for text in units.values() for line in text.splitlines() if "HELM_SERVICE_URL=" in line]
        return [line.partition("HELM_SERVICE_URL=")[2].strip('"') for line in lines]

    assert found(Settings()) == ["http://mine:1"]
    assert found(Settings(port=5104, url="http://localhost:5104")) == [
        "http://localhost:5104", "http://localhost:5104", "http://mine:1"
    ]  # fmt: skip


def test_keys_are_made_for_a_checkout_that_came_after_set_up(account: Layout) -> None:
    text = "[services.core]\nport = 5000\n[services.nexus]\nport = 443\n[services.ledger]\nport = 5030\n"
    registry = read_registry([ConfigSource("test", text)], {})
    core, gateway = (account.data / f"hivematrix-{name}" for name in ("core", "nexus"))
    core.mkdir(parents=True)
    manager = cast(Manager, Idle())
    assert apply([], registry, account, Settings(), manager).notices == []
    assert (core / "keys/jwt_private.pem").is_file() and (core / "keys/jwt_public.pem").is_file()
    made = (core / "keys/jwt_private.pem").stat()
    (gateway / "certs").mkdir(parents=True)
    (gateway / "certs/nexus.crt").write_text("theirs")
    (notice,) = apply([], registry, account, Settings(), manager).notices
    assert notice.startswith("nexus was given no keys: ") and "nexus.key is not" in notice
    assert (core / "keys/jwt_private.pem").stat() == made and (gateway / "certs/nexus.crt").read_text() == "theirs"
    (gateway / "certs/nexus.crt").unlink()
    assert apply([], registry, account, Settings(), manager).notices == []
    assert (gateway / "certs/nexus.key").is_file()


def test_a_port_that_only_root_may_use_is_named_with_the_fix(account: Layout) -> None:
    registry = read_registry([ConfigSource("test", "[services.web]\nport = 1\n[services.other]\nport = 2\n")], {})
    web = Change("hivematrix-web.service", "same", "web", "web")
    (notice,) = apply([web], registry, account, Settings(), cast(Manager, Idle())).notices
    assert notice.startswith("hivematrix-web.service may not listen on port 1: unprivileged ports must be >= ")
    assert "run: echo net.ipv4.ip_unprivileged_port_start=1 | sudo tee /etc/sysctl.d/" in notice


def test_without_anybody_to_use_it_no_cluster_is_made(account: Layout) -> None:
    assert ensure_databases(Registry({}), account, Settings(), UnitFacts) == ()
    assert not account.suite_cluster.exists()


def test_no_service_shares_the_database_of_keycloak(account: Layout) -> None:
    text = '[services.login]\ntype = "keycloak"\nport = 8080\n[services.keycloak]\nport = 6000\ndatabase = true\n'
    settings = Settings()
    registry = whole_suite(read_registry([ConfigSource("test", text)], {}), settings)
    with pytest.raises(ConfigurationError) as caught:
        ensure_databases(registry, account, settings, UnitFacts)
    assert "services.keycloak.database" in str(caught.value.faults[0])
    assert not account.secrets.exists()


def test_home_directories_come_and_go_with_their_services(account: Layout, tmp_path: Path) -> None:
    """Private, kept as they are, and removed without following what a program left in them."""
    services = "".join(
        f'[services.{name}]\ntype = "command"\nstart_command = ["sleep"]\nhardening = "{profile}"\n'
        for name, profile in (("shop", "default"), ("vault", "strict"), ("open", "basic"))
    )
    registry = read_registry([ConfigSource("test", services)], {})
    make_homes(registry, account)
    assert sorted(home.name for home in (account.state / "homes").iterdir()) == ["shop", "vault"]
    home, precious = account.home_of("shop"), tmp_path / "precious"
    assert home.stat().st_mode & 0o777 == 0o700
    precious.mkdir()
    (precious / "file").touch()
    (home / "link").symlink_to(precious)
    (home / ".cache/pip").mkdir(parents=True)
    make_homes(registry, account)
    assert (home / ".cache/pip").is_dir()
    remove_home(SHOP.unit, account)
    remove_home("hivematrix-vault.socket", account)
    remove_home("helmd.service", account)
    assert not home.exists() and (precious / "file").exists() and account.home_of("vault").is_dir()
