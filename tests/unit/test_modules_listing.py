"""Which modules there are: those of the catalogue, and those of the suite."""

from pathlib import Path

from helmd.model.layout import Layout, layout
from helmd.model.suite.service import Registry, Service
from helmd.operations.modules.listing import available_modules

TOP = Path(__file__).resolve().parents[2]


def places(place: Path, share: Path) -> Layout:
    return layout({}, place, 1000, share)


def test_the_catalogue_of_the_package(tmp_path: Path) -> None:
    found = {each.name: each for each in available_modules(places(tmp_path, TOP), Registry({"core": Service("core")}))}
    assert found["core"].present and not found["codex"].present
    assert found["codex"].source.startswith("https://") and found["codex"].description.startswith("Codex")
    assert "keycloak" not in found


def test_files_of_the_account_override_it_and_add_nothing_to_it(tmp_path: Path) -> None:
    own = places(tmp_path, tmp_path / "share")
    own.share.mkdir()
    (own.share / "services.toml").write_text('[services.a]\ninstall.source = "https://one/a"\ndescription = "A"\n')
    own.registry_directory.mkdir(parents=True)
    own.registry_file.write_text(
        '[services.a.install]\nsource = "https://two/a"\nref = "v1"\n[services.b]\ninstall.source = "https://two/b"\n'
    )
    (found,) = available_modules(own, Registry({}))
    assert (found.name, found.description, found.source, found.ref) == ("a", "A", "https://two/a", "v1")


def test_a_faulty_file_hides_nothing(tmp_path: Path) -> None:
    own = places(tmp_path, TOP)
    own.registry_directory.mkdir(parents=True)
    for text in ("services = 3", "[services]\ncore = 1", "[services.core]\ninstall = 7", "not toml"):
        own.registry_file.write_text(text)
        assert "core" in {each.name for each in available_modules(own, Registry({}))}
