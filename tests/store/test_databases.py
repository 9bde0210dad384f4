"""Databases for services on an external server: a role, a database and a password each, known to the service alone."""

import configparser
import os
import stat
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from helmd.files.environment_file import put_secret, read_environment_file
from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.layout import Layout, layout
from helmd.model.suite.composition import whole_suite
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.configuration.databases import (
    ensure_databases,
    keycloak_database,
    put_uris,
    rename_databases,
)
from helmd.postgres.activity import database_use
from helmd.postgres.cluster import ClusterError
from helmd.postgres.external import server_of
from helmd.postgres.roles import copy_database, restore_copy
from helmd.postgres.uris import external_dsn
from tests.store.conftest import Cluster

REGISTRY = """
[services.keycloak]
type = "keycloak"
port = 8080
[services.shop]
type = "python"
port = 6000
database = true
database_variable = "SHOP_DB"
"""


@pytest.fixture
def suite(cluster: Cluster) -> tuple[Registry, Settings]:
    settings = Settings(suite_database=f"postgresql://postgres@/postgres?host={cluster.directory}&port=5432")
    return whole_suite(read_registry([ConfigSource("test", REGISTRY)], {}), settings), settings


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    return layout({}, tmp_path, os.getuid(), tmp_path)


def test_each_service_gets_its_own(suite: tuple[Registry, Settings], place: Layout, cluster: Cluster) -> None:
    registry, settings = suite
    assert "postgres" not in registry, "an external server is not a service of the suite"
    assert ensure_databases(registry, place, settings, UnitFacts) == ("shop", "keycloak")
    secrets = read_environment_file(place.secrets_file("shop"))
    assert stat.S_IMODE(place.secrets_file("shop").stat().st_mode) == 0o600
    with psycopg.connect(secrets["SHOP_DB"]) as connection:
        row = connection.execute("select current_user, current_database()").fetchone()
        assert row == ("shop", "shop")
    assert secrets["HIVEMATRIX_DATABASE_PASSWORD"] in secrets["SHOP_DB"]


def test_again_changes_nothing(suite: tuple[Registry, Settings], place: Layout) -> None:
    registry, settings = suite
    ensure_databases(registry, place, settings, UnitFacts)
    before = read_environment_file(place.secrets_file("shop"))
    ensure_databases(registry, place, settings, UnitFacts)
    assert read_environment_file(place.secrets_file("shop")) == before


def test_another_server_is_followed(suite: tuple[Registry, Settings], place: Layout) -> None:
    registry, settings = suite
    ensure_databases(registry, place, settings, UnitFacts)
    password = read_environment_file(place.secrets_file("shop"))["HIVEMATRIX_DATABASE_PASSWORD"]
    put_secret(place.secrets_file("shop"), "SHOP_DB", f"postgresql://shop:{password}@elsewhere:5432/shop")
    ensure_databases(registry, place, settings, UnitFacts)
    with psycopg.connect(read_environment_file(place.secrets_file("shop"))["SHOP_DB"]) as connection:
        assert connection.execute("select current_database()").fetchone() == ("shop",)


def test_a_uri_of_the_admins_own_stays(suite: tuple[Registry, Settings], place: Layout) -> None:
    registry, settings = suite
    own = "postgresql://shop:mine@db.example.org/shop"
    put_secret(place.secrets_file("shop"), "SHOP_DB", own)
    ensure_databases(registry, place, settings, UnitFacts)
    assert read_environment_file(place.secrets_file("shop"))["SHOP_DB"] == own
    (report,) = put_uris(registry, place, settings)
    assert "SHOP_DB, which is kept" in report and "mine" not in report


NAMED = """
database_name = "shop_db"
[services.shop.database_config]
file = "instance/shop.conf"
section = "database"
key = "connection_string"
"""


def named(settings: Settings, name: str = "shop_db") -> Registry:
    text = REGISTRY + NAMED.replace("shop_db", name)
    return whole_suite(read_registry([ConfigSource("test", text)], {}), settings)


def in_file(place: Layout) -> str:
    parser = configparser.RawConfigParser()
    parser.read(place.data / "hivematrix-shop/instance/shop.conf")
    return parser.get("database", "connection_string")


def test_a_program_finds_its_database_in_its_own_file(suite: tuple[Registry, Settings], place: Layout) -> None:
    _, settings = suite
    (place.data / "hivematrix-shop").mkdir(parents=True)
    ensure_databases(named(settings), place, settings, UnitFacts)
    file = place.data / "hivematrix-shop/instance/shop.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert in_file(place) == read_environment_file(place.secrets_file("shop"))["SHOP_DB"]
    with psycopg.connect(in_file(place)) as connection:
        row = connection.execute("select current_user, current_database()").fetchone()
        assert row == ("shop", "shop_db")
    file.write_text("[sync]\nevery = 5\n\n[database]\nconnection_string =\n")
    assert put_uris(named(settings), place, settings) == []
    assert "every = 5" in file.read_text() and in_file(place).startswith("postgresql://shop:")
    own = "postgresql://codex_user:secret@localhost:5432/shop"
    file.write_text(f"[database]\nconnection_string = {own}\n")
    (report,) = put_uris(named(settings), place, settings)
    assert f"{file} names another database for shop, which is kept" in report and "secret" not in report
    assert in_file(place) == own


def test_a_program_of_sqlalchemy_finds_its_driver_in_the_uri(suite: tuple[Registry, Settings], place: Layout) -> None:
    _, settings = suite
    (place.data / "hivematrix-shop").mkdir(parents=True)
    ensure_databases(named(settings), place, settings, UnitFacts)
    before = in_file(place)
    text = REGISTRY + NAMED + 'scheme = "postgresql+psycopg2"\n'
    registry = whole_suite(read_registry([ConfigSource("test", text)], {}), settings)
    for _ in range(2):
        assert put_uris(registry, place, settings) == []
        assert in_file(place) == "postgresql+psycopg2" + before.removeprefix("postgresql")
    assert read_environment_file(place.secrets_file("shop"))["SHOP_DB"] == before
    assert put_uris(named(settings), place, settings) == [] and in_file(place) == before


@pytest.mark.parametrize("password", ["CHANGE_ME", "changeme", "%3Cchange-this%3E"])
def test_a_password_that_an_installer_left_to_be_changed_is_no_choice_of_the_admin(
    suite: tuple[Registry, Settings], place: Layout, password: str
) -> None:
    _, settings = suite
    file = place.data / "hivematrix-shop/instance/shop.conf"
    file.parent.mkdir(parents=True)
    file.write_text(f"[database]\nconnection_string = postgresql://shop_user:{password}@localhost:5432/shop\n")
    assert put_uris(named(settings), place, settings) == []
    ensure_databases(named(settings), place, settings, UnitFacts)
    with psycopg.connect(in_file(place)) as connection:
        assert connection.info.dbname == "shop_db"


@pytest.mark.parametrize("place_of_link", ["instance", "instance/shop.conf", ""])
def test_a_uri_is_written_through_no_link(
    suite: tuple[Registry, Settings], place: Layout, tmp_path: Path, place_of_link: str
) -> None:
    _, settings = suite
    checkout = place.data / "hivematrix-shop"
    outside = tmp_path / "outside"
    (outside / "instance").mkdir(parents=True)
    (outside / "instance/shop.conf").write_text("[a]\nb = c\n")
    (checkout / place_of_link).parent.mkdir(parents=True, exist_ok=True)
    (checkout / place_of_link).symlink_to(outside / place_of_link)
    (report,) = put_uris(named(settings), place, settings)
    assert f"{checkout / place_of_link}: is a symbolic link, which is not followed" in report
    assert [path.name for path in outside.rglob("*")] == ["instance", "shop.conf"]
    assert (outside / "instance/shop.conf").read_text() == "[a]\nb = c\n"


def test_a_database_is_renamed_once_its_service_is_stopped(suite: tuple[Registry, Settings], place: Layout) -> None:
    registry, settings = suite
    ensure_databases(registry, place, settings, UnitFacts)
    dsn = read_environment_file(place.secrets_file("shop"))["SHOP_DB"]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int)")
    renamed = named(settings, "shop_renamed")

    def running(unit: str) -> UnitFacts:
        return UnitFacts(unit, active_state="active", invocation="1")

    (report,) = rename_databases(renamed, place, settings, running)
    assert "still called shop; to rename it to shop_renamed: helmctl stop shop; helmctl apply" in report
    ensure_databases(renamed, place, settings, running)
    assert read_environment_file(place.secrets_file("shop"))["SHOP_DB"] == dsn
    assert list(rename_databases(renamed, place, settings, UnitFacts)) == []
    ensure_databases(renamed, place, settings, UnitFacts)
    with psycopg.connect(read_environment_file(place.secrets_file("shop"))["SHOP_DB"]) as connection:
        assert connection.execute("SELECT current_database(), count(*) FROM kept").fetchone() is not None
        assert connection.info.dbname == "shop_renamed"


def test_a_database_goes_back_to_its_copy(suite: tuple[Registry, Settings], place: Layout) -> None:
    """Its owner and who may connect are as before; going back again, or without a copy, changes nothing."""
    _, settings = suite
    text = REGISTRY.replace("shop", "stall").replace("SHOP", "STALL")
    registry = whole_suite(read_registry([ConfigSource("test", text)], {}), settings)
    ensure_databases(registry, place, settings, UnitFacts)
    uri = read_environment_file(place.secrets_file("stall"))["STALL_DB"]

    def notes(*more: str) -> list[str]:
        with psycopg.connect(uri, autocommit=True) as connection:
            for text in more:
                connection.execute("insert into notes values (%s)", (text,))
            return [row[0] for row in connection.execute("select body from notes order by 1")]

    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("create table notes (body text)")
    assert notes("kept") == ["kept"]
    restore_copy(settings.suite_database, "stall", "stall_before")
    for _ in range(2):
        copy_database(settings.suite_database, "stall", "stall_before")
    assert notes("changed since") == ["changed since", "kept"]
    query = (
        "select datname, pg_get_userbyid(datdba), datacl::text from pg_database where datname like 'stall%' order by 1"
    )
    with psycopg.connect(settings.suite_database, autocommit=True) as admin:
        stall, copy = admin.execute(query).fetchall()
        assert stall[1:] == copy[1:] == ("stall", "{stall=CTc/stall}")
        with psycopg.connect(uri), pytest.raises(ClusterError, match="is being accessed by other users"):
            copy_database(settings.suite_database, "stall", "stall_before_that")
        for _ in range(2):
            restore_copy(settings.suite_database, "stall", "stall_before")
            assert notes() == ["kept"]
        assert admin.execute(query).fetchall() == [stall]
    with pytest.raises(ClusterError, match="there is no database 'elsewhere'"):
        copy_database(settings.suite_database, "elsewhere", "copy")


def test_unreadable_secrets_of_one_service_are_its_own_affair(
    suite: tuple[Registry, Settings], place: Layout, tmp_path: Path
) -> None:
    _, settings = suite
    text = REGISTRY + "[services.till]\nport = 6001\ndatabase = true\n"
    registry = whole_suite(read_registry([ConfigSource("test", text)], {}), settings)
    place.secrets.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("")
    place.secrets_file("till").symlink_to(tmp_path / "elsewhere")
    ensure_databases(registry, place, settings, UnitFacts)
    with psycopg.connect(read_environment_file(place.secrets_file("shop"))["SHOP_DB"]) as connection:
        assert connection.info.dbname == "shop"
    (report,) = put_uris(registry, place, settings)
    assert report.startswith("till was not given the URI of its database: ")


def test_how_the_server_is_spoken_to_is_passed_on() -> None:
    settings = Settings(
        suite_database="postgresql://root:x@db.example:6543/postgres?sslmode=verify-full&sslrootcert=/ca"
    )
    assert server_of(settings.suite_database).query == "?sslmode=verify-full&sslrootcert=%2Fca"
    places = layout({}, Path("/home/o'neil & co"), 7, Path("/share"))
    assert keycloak_database(places, settings) == "db.example:6543/keycloak?sslmode=verify-full&sslrootcert=%2Fca"
    assert keycloak_database(places, Settings()) == (
        "127.0.0.1:5499/keycloak?sslmode=verify-full"
        "&sslrootcert=/home/o%27neil%20%26%20co/.local/state/hivematrix/postgres-suite/server.crt"
        "&channelBinding=require"
    )


@pytest.mark.parametrize(
    ("given", "jdbc", "host"),
    [
        ("postgresql://a:b@db.example/x", "db.example:5432", "db.example"),
        ("postgresql://a:b@[::1]:6543/x", "[::1]:6543", "[::1]"),
        ("postgresql://a:b@[2001:db8::7]/x", "[2001:db8::7]:5432", "[2001:db8::7]"),
        ("postgresql:///x?host=fe80::1%25eth0&port=7", "[fe80::1%eth0]:7", "[fe80::1%25eth0]"),
        ("postgresql:///x?hostaddr=10.1.2.3", "10.1.2.3:5432", "10.1.2.3"),
    ],
)
def test_addresses_are_written_as_each_kind_of_url_wants_them(given: str, jdbc: str, host: str) -> None:
    server = server_of(given)
    places = layout({}, Path("/home/hive"), 7, Path("/share"))
    assert keycloak_database(places, Settings(suite_database=given)) == f"{jdbc}/keycloak"
    uri = external_dsn(server.host, server.port, "shop", "p@ss:w/rd%")
    assert uri == f"postgresql://shop:p%40ss%3Aw%2Frd%25@{host}:{server.port}/shop"
    read = conninfo_to_dict(uri)
    assert (read["host"], read["password"]) == (server.host, "p@ss:w/rd%")


def test_keycloak_is_given_no_unix_socket() -> None:
    places = layout({}, Path("/home/hive"), 7, Path("/share"))
    with pytest.raises(ClusterError, match="unix socket in /run/postgresql"):
        keycloak_database(places, Settings(suite_database="postgresql:///x?host=/run/postgresql"))


def test_the_identity_of_the_administrator_is_not_passed_on() -> None:
    """It would stand in Keycloak's unit, and in the environment of every service."""
    given = "postgresql://root@db/x?sslmode=require&sslcert=/a&sslkey=/b&sslpassword=secret"
    assert server_of(given).query == "?sslmode=require"


def test_a_used_database_is_known_by_sessions_and_tables(suite: tuple[Registry, Settings], place: Layout) -> None:
    registry, settings = suite
    ensure_databases(registry, place, settings, UnitFacts)
    uri = read_environment_file(place.secrets_file("shop"))["SHOP_DB"]
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
    assert database_use(settings.suite_database, "shop", "shop") == (0, False)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        assert database_use(settings.suite_database, "shop", "shop") == (1, True)
