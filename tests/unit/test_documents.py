"""What README, HACKING and the packaging notes say exists."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "HACKING.md", "packaging/README.md", "tests/suite/README.md")
NAMED = re.compile(r"`((?:helmd|units|scripts|tests|packaging|debian)/[\w./-]*)(?:: (\w+))?`")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document: str) -> None:
    text = (TOP / document).read_text()
    missing = []
    for path, definition in NAMED.findall(text):
        place = TOP / path
        if not place.exists():
            missing.append(path)
        elif definition:
            defined = rf"^(?:async )?(?:def|class) {definition}\b"
            if not re.search(defined, place.read_text(), re.MULTILINE):
                missing.append(f"{definition} in {path}")
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if not ((TOP / document).parent / link).exists()]
    assert not missing + links


def test_every_room_is_in_hacking() -> None:
    text = (TOP / "HACKING.md").read_text()
    rooms = [path.parent.name for path in (TOP / "helmd").glob("*/__init__.py")]
    assert rooms
    assert [room for room in rooms if f"`helmd/{room}/`" not in text] == []
