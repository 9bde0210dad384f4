"""What Helm writes into the directories of services."""

import os
import stat
import tomllib
from pathlib import Path

import pytest

from helmd.files.environment_file import read_environment_file
from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError
from helmd.model.layout import Layout, layout
from helmd.model.suite.discovery import discovery_document
from helmd.operations.configuration.module_files import (
    ensure_service_secrets,
    place_client_secret,
    place_flaskenv,
    place_services_json,
)
from tests.catalogue import SUITE, suite

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def account(tmp_path: Path) -> Layout:
    made = layout({}, tmp_path, os.getuid(), TOP)
    for name in ("hivematrix-core", "hivematrix-nexus", "hivematrix-worker"):
        (made.data / name).mkdir(parents=True)
    return made


def variables(account: Layout, name: str) -> dict[str, str]:
    return read_environment_file(account.data / f"hivematrix-{name}/.flaskenv")


def test_every_checkout_learns_of_a_new_service(account: Layout) -> None:
    worker = '[services.worker]\ntype = "command"\nstart_command = ["true"]\n'
    registry = suite(SUITE + worker)
    document = discovery_document(registry, Settings())
    assert list(place_services_json(registry, account, document)) == []
    for name in ("core", "nexus"):
        file = account.data / f"hivematrix-{name}/services.json"
        assert file.read_text() == document and stat.S_IMODE(file.stat().st_mode) == 0o644
    assert not (account.data / "hivematrix-worker/services.json").exists()
    asking = suite(f"{SUITE}{worker}services_json = true\n")
    assert list(place_services_json(asking, account, document)) == []
    assert (account.data / "hivematrix-worker/services.json").read_text() == document


def test_a_checkout_that_cannot_be_written_is_reported(account: Layout, tmp_path: Path) -> None:
    checkout = account.data / "hivematrix-core"
    checkout.rmdir()
    (tmp_path / "elsewhere").mkdir()
    checkout.symlink_to(tmp_path / "elsewhere")
    (report,) = place_services_json(suite(), account, "{}")
    assert report == (
        f"services.json of core was not written: {checkout}: is a symbolic link, which is not followed; set path to the"
        " real directory"
    )
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (account.data / "hivematrix-nexus/services.json").read_text() == "{}"


def test_every_module_of_the_catalogue_finds_core(account: Layout) -> None:
    """KnowledgeTree, for one, ends at once without CORE_SERVICE_URL."""
    catalogue = tomllib.loads((TOP / "services.toml").read_text())["services"]
    modules = [name for name, entry in catalogue.items() if "core" in entry.get("depends_on", [])]
    assert {"nexus", "codex", "ledger", "knowledgetree"} <= set(modules)
    for name in modules:
        (account.data / f"hivematrix-{name}").mkdir(exist_ok=True)
    names = "".join(f"[services.{name}]\n" for name in modules)
    registry = suite(f'[services.keycloak]\nrealm = "staff"\n[services.core]\nport = 5900\n{names}')
    assert list(place_flaskenv(registry, account)) == []
    for name in modules:
        found = variables(account, name)
        assert (found["SERVICE_NAME"], found["CORE_SERVICE_URL"]) == (name, "http://localhost:5900")
    gateway = variables(account, "nexus")
    assert (gateway["KEYCLOAK_BACKEND_URL"], gateway["KEYCLOAK_REALM"]) == ("http://localhost:8080", "staff")


def test_variables_follow_the_settings_until_the_admin_changes_them(account: Layout) -> None:
    file = account.data / "hivematrix-nexus/.flaskenv"

    def place(port: int) -> list[str]:
        registry = suite(f"[services.keycloak]\nport = {port}\n[services.core]\n[services.nexus]\n")
        return [report for report in place_flaskenv(registry, account) if " of nexus " in report]

    for port, both in ((9080, None), (9081, True), (9082, False)):
        changed = "KEYCLOAK_SERVER_URL, KEYCLOAK_BACKEND_URL" if both else "KEYCLOAK_BACKEND_URL"
        said = f"{changed} in .flaskenv of nexus changed; to take effect: helmctl restart nexus"
        assert place(port) == ([] if both is None else [said])
        assert place(port) == []
        found = variables(account, "nexus")
        assert found["KEYCLOAK_BACKEND_URL"] == f"http://localhost:{port}"
        if port == 9081:
            file.write_text(file.read_text().replace("KEYCLOAK_SERVER_URL=", "KEYCLOAK_SERVER_URL=https://sso/#"))
    assert found["KEYCLOAK_SERVER_URL"].startswith("https://sso/"), "it is the admin's now"
    assert stat.S_IMODE(account.placed_variables.stat().st_mode) == 0o600
    for damaged in ("", "[1]", '{"nexus": 1}', '{"nexus": {"KEYCLOAK_BACKEND_URL": 1}}'):
        account.placed_variables.write_text(damaged)
        assert place(9083) == []
        assert variables(account, "nexus")["KEYCLOAK_BACKEND_URL"] == "http://localhost:9082"


def test_flaskenv_gets_what_it_lacks(account: Layout) -> None:
    file = account.data / "hivematrix-core/.flaskenv"
    file.write_text("# mine\nKEYCLOAK_REALM='staff'\nFLASK_APP=run.py")
    registry = suite("[services.keycloak]\nport = 9080\n[services.core]\n[services.nexus]\n")
    assert list(place_flaskenv(registry, account)) == []
    assert file.read_text().startswith("# mine\nKEYCLOAK_REALM='staff'\nFLASK_APP=run.py\n")
    found = variables(account, "core")
    assert (found["KEYCLOAK_REALM"], found["KEYCLOAK_SERVER_URL"]) == ("staff", "http://localhost:9080")
    assert found["JWT_PRIVATE_KEY_FILE"] == "keys/jwt_private.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert variables(account, "nexus")["CORE_SERVICE_URL"] == "http://localhost:5000"
    before = file.stat().st_ino
    assert list(place_flaskenv(registry, account)) == []
    assert file.stat().st_ino == before
    external = suite("[services.core]\ndepends_on = []\n")
    file.unlink()
    assert list(place_flaskenv(external, account)) == []
    assert "KEYCLOAK_SERVER_URL" not in variables(account, "core"), "Keycloak is not in that suite"


def test_random_values_are_made_once_unless_the_checkout_has_one(account: Layout) -> None:
    (account.data / "hivematrix-nexus/.flaskenv").write_text("SECRET_KEY=mine\n")
    assert list(ensure_service_secrets(suite(), account)) == []
    made = read_environment_file(account.secrets_file("core"))["SECRET_KEY"]
    assert len(made) >= 32
    assert not account.secrets_file("nexus").exists()
    assert list(ensure_service_secrets(suite(), account)) == []
    assert read_environment_file(account.secrets_file("core"))["SECRET_KEY"] == made


def test_a_linked_flaskenv_is_not_written_through(account: Layout, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("A=1\n")
    file = account.data / "hivematrix-core/.flaskenv"
    file.symlink_to(tmp_path / "victim")
    (report,) = place_flaskenv(suite(), account)
    assert f"{file}: is a symbolic link" in report
    (report,) = ensure_service_secrets(suite("[services.core]\ndepends_on = []"), account)
    assert "core was given no SECRET_KEY" in report
    assert (tmp_path / "victim").read_text() == "A=1\n"


def test_the_gateway_runs_no_debugger_for_others(account: Layout) -> None:
    nexus = suite()["nexus"]
    assert nexus.port_variable == "NEXUS_PORT"
    assert nexus.environment_in("development")["NEXUS_HOST"] == "127.0.0.1"
    assert nexus.environment_in("production")["USE_GUNICORN"] == "true"
    assert "DEV_MODE" not in nexus.environment_in("production")


def test_the_secret_of_keycloaks_client_goes_where_the_catalogue_says(account: Layout) -> None:
    core, nexus = (account.data / f"hivematrix-{name}/.flaskenv" for name in ("core", "nexus"))
    core.write_text("# mine\nKEYCLOAK_CLIENT_SECRET=old\nOTHER='1'")
    core.chmod(0o644)
    nexus.write_text("KEYCLOAK_CLIENT_ID=portal\nKEYCLOAK_CLIENT_SECRET=of the portal\n")
    shown = [str(each) for each in place_client_secret(suite(), account, "s3cret", write=False)]
    assert shown == [
        ".flaskenv of core: KEYCLOAK_CLIENT_SECRET is another value, must be the secret of client core-client",
        ".flaskenv of core: mode is 0644, must be 0600",
    ]
    assert "old" in core.read_text()
    assert [str(each) for each in place_client_secret(suite(), account, "s3cret", write=True)] == shown
    assert core.read_text() == "# mine\nKEYCLOAK_CLIENT_SECRET=s3cret\nOTHER='1'\n"
    assert stat.S_IMODE(core.stat().st_mode) == 0o600
    assert "of the portal" in nexus.read_text(), "it logs in as another client"
    assert list(place_client_secret(suite(), account, "s3cret", write=True)) == []
    # What else is added to the file leaves the secret alone, and never writes what stands for it.
    assert list(place_flaskenv(suite(), account)) == []
    assert variables(account, "core")["KEYCLOAK_CLIENT_SECRET"] == "s3cret"
    nexus.unlink()
    assert list(place_flaskenv(suite(), account)) == []
    assert "KEYCLOAK_CLIENT_SECRET" not in variables(account, "nexus")
    assert variables(account, "nexus")["KEYCLOAK_CLIENT_ID"] == "core-client"
    assert [each.setting for each in place_client_secret(suite(), account, "s3cret", write=True)] == [
        "KEYCLOAK_CLIENT_SECRET"
    ]
    assert variables(account, "nexus")["KEYCLOAK_CLIENT_SECRET"] == "s3cret"


def test_the_secret_of_keycloaks_client_is_not_written_through_a_link(account: Layout, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("A=1\n")
    (account.data / "hivematrix-core/.flaskenv").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="is a symbolic link"):
        list(place_client_secret(suite(), account, "s3cret", write=True))
    assert (tmp_path / "victim").read_text() == "A=1\n"


def test_only_the_reference_to_that_secret_may_be_in_the_configuration() -> None:
    reference = (
        '[services.portal]\nport = 1\n[services.portal.flaskenv]\nOIDC_CLIENT_SECRET = "{keycloak.client_secret}"\n'
    )
    assert suite(reference)["portal"].flaskenv == {"OIDC_CLIENT_SECRET": "{keycloak.client_secret}"}
    for text in (reference.replace("{keycloak.client_secret}", "abc"), reference.replace(".flaskenv", ".environment")):
        with pytest.raises(ConfigurationError) as refused:
            suite(text)
        assert "looks like a secret" in str(refused.value.faults[0])
