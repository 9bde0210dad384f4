"""What pages load: the programs of others are those of the list, and all of a page is small."""

import hashlib
import re
import shutil
import subprocess
import tomllib
from gzip import compress
from pathlib import Path

import pytest

from helmd.web.pages.assets import STATIC

TOP = STATIC.parents[2]
LISTED = tomllib.loads((TOP / "helmd/web/vendored.toml").read_text())
PAGE, SCRIPT = 120_000, 60_000
"""Bytes that a page may be, and its scripts of these."""
_IMPORTS = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*["'](\.{1,2}/[^"']+)["']""")


def imported(path: Path, found: set[Path] | None = None) -> set[Path]:
    """Return PATH and all scripts that it imports, at once or later."""
    found = set() if found is None else found
    if path not in found:
        found.add(path)
        for name in _IMPORTS.findall(path.read_text()):
            imported((path.parent / name).resolve(), found)
    return found


def test_what_is_vendored_is_what_is_listed() -> None:
    listed = {
        file["to"]: file.get("result", file["sha256"]) for package in LISTED["package"] for file in package["files"]
    }
    listed[LISTED["icons"]["to"]] = LISTED["icons"]["sha256"]
    found = {
        path.relative_to(STATIC).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STATIC / "icons.svg", *(STATIC / "vendor").rglob("*.*"))
    }
    assert found == listed
    changed = {file["to"] for package in LISTED["package"] for file in package["files"] if "result" in file}
    assert changed == {file["to"] for package in LISTED["package"] for file in package["files"] if "replace" in file}


def test_every_licence_is_in_the_package() -> None:
    text = (TOP / "debian/copyright").read_text()
    for package in LISTED["package"]:
        licence = package["licence"].replace("MIT", "Expat")
        assert f"\nLicense: {licence}\n " in text
        for file in package["files"]:
            own = f"helmd/web/static/{file['to']}"
            assert own in text or f"{own.rsplit('/', 1)[0]}/*" in text, own


def test_what_scripts_import_is_there() -> None:
    for path in STATIC.glob("*.js"):
        assert all(each.is_file() for each in imported(path)), path


@pytest.fixture(scope="module")
def minified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the files as the package has them."""
    assert shutil.which("esbuild"), "apt install esbuild"
    directory = tmp_path_factory.mktemp("minified") / "static"
    shutil.copytree(STATIC, directory)
    subprocess.run([TOP / "packaging/minify.py", directory], check=True)
    return directory


def test_each_page_is_small(minified: Path) -> None:
    """Whole, with what is loaded only when it is wanted; as it is sent, without what a template adds."""
    common = sum(len(compress((minified / name).read_bytes())) for name in ("helm.css", "icons.svg", "helm.svg"))
    shared = imported(minified / "helm.js")
    for template in (STATIC.parent / "templates").glob("*.html"):
        text = template.read_text()
        scripts = set(shared)
        for name in re.findall(r"asset\(['\"]([^'\"]+\.js)['\"]\)", text):
            scripts |= imported(minified / name)
        size = sum(len(compress(path.read_bytes())) for path in scripts)
        assert size <= SCRIPT, f"{template.name}: {size} bytes of scripts"
        assert size + common <= PAGE, f"{template.name}: {size + common} bytes"
