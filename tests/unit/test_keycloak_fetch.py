"""Fetching from a real HTTP server that truncates, resumes and sends wrong content; unpacking hostile archives."""

import gzip
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helmd.keycloak.distribution.artefact import KEYCLOAK, Artefact
from helmd.keycloak.distribution.fetch import fetch, main
from helmd.keycloak.distribution.unpack import artefact_of, unpack, unpacked
from helmd.model.errors import FetchError, LockedError
from helmd.operations.identity.upgrade import keep_own_files, older

TOP = "keycloak-1.2.3"


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, body in members:
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


GOOD = archive(
    (member(TOP, tarfile.DIRTYPE, mode=0o755), b""),
    (member(f"{TOP}/bin/kc.sh", mode=0o6755), b"#!/bin/sh\n"),
    (member(f"{TOP}/lib/quarkus-run.jar"), os.urandom(300_000)),
)


def described(content: bytes, url: str = "http://127.0.0.1:9/none") -> Artefact:
    return Artefact("1.2.3", len(content), hashlib.sha256(content).hexdigest(), url)


@dataclass
class Site:
    """An HTTP server that responds by `reply` and records the requested ranges."""

    port: int = 0
    reply: Callable[[BaseHTTPRequestHandler], None] = lambda handler: None
    ranges: list[str | None] = field(default_factory=list)

    def artefact(self) -> Artefact:
        return described(GOOD, f"http://127.0.0.1:{self.port}/keycloak.tar.gz")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.ranges.append(self.headers.get("Range"))
            site.reply(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield site
        server.shutdown()


def whole(body: bytes, sent: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    """Respond with 200 and BODY, but send only the first SENT bytes of it."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:sent])

    return reply


def in_pieces(body: bytes, piece: int) -> Callable[[BaseHTTPRequestHandler], None]:
    """Honour Range, and close the connection after PIECE bytes."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        requested = handler.headers.get("Range")
        first = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
        handler.send_response(206 if requested else 200)
        if requested:
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - first))
        handler.end_headers()
        handler.wfile.write(body[first : first + piece])

    return reply


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: handler.send_error(code)


def names(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}


def test_interrupted_download_is_resumed(site: Site, tmp_path: Path) -> None:
    site.reply = in_pieces(GOOD, 100_000)
    seen: list[tuple[int, int]] = []
    path = fetch(tmp_path, progress=lambda done, total: seen.append((done, total)), artefact=site.artefact())
    assert path.read_bytes() == GOOD
    assert site.ranges == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]
    assert seen[-1] == (len(GOOD), len(GOOD)) and seen == sorted(seen)
    assert names(tmp_path) == {f"{TOP}.tar.gz"}
    site.reply = status(500)
    assert fetch(tmp_path, artefact=site.artefact()) == path, "a verified file is not fetched again"


def test_partial_file_is_kept_for_the_next_run(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.keycloak.distribution.download._ATTEMPTS", 1)
    first = [whole(GOOD, 1000)]
    site.reply = lambda handler: (first.pop() if first else status(503))(handler)
    with pytest.raises(FetchError, match="503"):
        fetch(tmp_path, artefact=site.artefact())
    assert (tmp_path / f"{TOP}.tar.gz.part").stat().st_size == 1000
    site.reply = in_pieces(GOOD, len(GOOD))
    assert fetch(tmp_path, artefact=site.artefact()).read_bytes() == GOOD
    assert site.ranges[-1] == "bytes=1000-"


def test_download_restarts_if_the_server_ignores_ranges(site: Site, tmp_path: Path) -> None:
    (tmp_path / f"{TOP}.tar.gz.part").write_bytes(b"x" * 5000)
    site.reply = whole(GOOD)
    assert fetch(tmp_path, artefact=site.artefact()).read_bytes() == GOOD


@pytest.mark.parametrize(
    "reply",
    [whole(GOOD[:-1] + b"!"), whole(GOOD + b"more"), status(404), whole(b"<html>log in</html>")],
    ids=["one byte differs", "too long", "not found", "a login page"],
)
def test_wrong_content_leaves_nothing_behind(
    site: Site,
    tmp_path: Path,
    reply: Callable[[BaseHTTPRequestHandler], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("helmd.keycloak.distribution.download._ATTEMPTS", 1)
    site.reply = reply
    with pytest.raises(FetchError) as caught:
        fetch(tmp_path, artefact=site.artefact())
    assert caught.value.hint
    assert names(tmp_path) == set()


def test_symbolic_link_at_the_partial_path_is_not_followed(site: Site, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / f"{TOP}.tar.gz.part").symlink_to(victim)
    site.reply = whole(GOOD)
    with pytest.raises((FetchError, OSError)):
        fetch(tmp_path / "into", artefact=site.artefact())
    assert victim.read_text() == "precious"


def test_one_fetch_at_a_time(site: Site, tmp_path: Path) -> None:
    site.reply = whole(GOOD)

    def second(done: int, total: int) -> None:
        with pytest.raises(LockedError):
            fetch(tmp_path, artefact=site.artefact())

    fetch(tmp_path, progress=second, artefact=site.artefact())


def test_given_file_is_verified_and_used_in_place(tmp_path: Path) -> None:
    given = tmp_path / "copy.tgz"
    given.write_bytes(GOOD)
    assert fetch(tmp_path / "into", given, artefact=described(GOOD)) == given
    given.write_bytes(GOOD[:-1])
    with pytest.raises(FetchError, match="bytes instead of"):
        fetch(tmp_path / "into", given, artefact=described(GOOD))
    with pytest.raises(FetchError, match="could not read"):
        fetch(tmp_path / "into", tmp_path / "absent", artefact=described(GOOD))
    assert not (tmp_path / "into").exists()


def maven_client(tmp_path: Path, body: str) -> str:
    """Write a script with the interface of mvn; BODY puts the artefact into $REPOSITORY."""
    client = tmp_path / "mvn"
    client.write_text(
        '#!/bin/sh\nfor each; do case "$each" in -Dmaven.repo.local=*) r=${each#*=};; esac; done\n'
        f"REPOSITORY=$r/org/keycloak/keycloak-quarkus-dist/1.2.3\nmkdir -p $REPOSITORY\n{body}\n"
    )
    client.chmod(0o755)
    return str(client)


def test_archive_is_fetched_by_maven_without_leftovers(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(GOOD)
    name = "keycloak-quarkus-dist-1.2.3.tar.gz"
    client = maven_client(tmp_path, f"cp {tmp_path}/good $REPOSITORY/{name}")
    assert fetch(tmp_path / "into", artefact=described(GOOD), mvn=client).read_bytes() == GOOD
    assert names(tmp_path / "into") == {f"{TOP}.tar.gz"}


def test_release_is_tried_after_maven_and_both_errors_are_reported(site: Site, tmp_path: Path) -> None:
    client = maven_client(tmp_path, 'echo "[ERROR] no such artefact"; exit 1')
    site.reply = whole(GOOD)
    assert fetch(tmp_path / "into", artefact=site.artefact(), mvn=client).read_bytes() == GOOD
    site.reply = status(404)
    with pytest.raises(FetchError, match=r"mvn failed with exit code 1; then .* returned 404") as caught:
        fetch(tmp_path / "other", artefact=site.artefact(), mvn=client)
    assert caught.value.lines == ("[ERROR] no such artefact",)
    wrong = maven_client(tmp_path, "echo wrong > $REPOSITORY/keycloak-quarkus-dist-1.2.3.tar.gz")
    with pytest.raises(FetchError, match="the file that mvn fetched is not"):
        fetch(tmp_path / "other", artefact=site.artefact(), mvn=wrong)
    assert names(tmp_path / "other") == set()


def test_archive_is_unpacked_once_without_special_mode_bits(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(GOOD)
    directory = unpack(tmp_path / "a.tgz", tmp_path / "data", described(GOOD))
    assert directory == tmp_path / "data" / TOP
    assert (directory / "bin/kc.sh").stat().st_mode & 0o7777 == 0o755
    assert (directory / "data").is_dir()
    (directory / "conf").mkdir()
    assert unpack(tmp_path / "absent", tmp_path / "data", described(GOOD)) == directory
    assert (directory / "conf").is_dir() and names(tmp_path / "data") == {TOP}


HOSTILE = {
    "absolute": [(member("/tmp/helm-escaped"), b"x")],
    "parent": [(member(f"{TOP}/../../escaped"), b"x")],
    "other top": [(member("elsewhere/file"), b"x")],
    "symbolic link": [
        (member(f"{TOP}/l", tarfile.SYMTYPE, "/etc"), b""),
        (member(f"{TOP}/l/helm-escaped"), b"x"),
    ],
    "hard link": [(member(f"{TOP}/l", tarfile.LNKTYPE, "/etc/passwd"), b"")],
    "device": [(member(f"{TOP}/null", tarfile.CHRTYPE), b"")],
    "fifo": [(member(f"{TOP}/pipe", tarfile.FIFOTYPE), b"")],
    "twice": [(member(f"{TOP}/a"), b"1"), (member(f"{TOP}/a"), b"2")],
    "empty": [],
}


@pytest.mark.parametrize("content", [*HOSTILE.values()], ids=[*HOSTILE])
def test_hostile_archives_leave_nothing_behind(tmp_path: Path, content: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    assert_refused(tmp_path, archive(*content))


def test_damaged_and_oversized_archives_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, GOOD[: len(GOOD) // 2])
    assert_refused(tmp_path, b"not an archive at all")
    huge = member(f"{TOP}/zeroes")
    huge.size = 2 << 30
    assert_refused(tmp_path, gzip.compress(huge.tobuf()))
    (tmp_path / "a.tgz").write_bytes(GOOD)
    with pytest.raises(FetchError, match="SHA-256"):
        unpack(tmp_path / "a.tgz", tmp_path / "data", replace(described(GOOD), sha256="0" * 64))


def assert_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(FetchError):
        unpack(tmp_path / "a.tgz", tmp_path / "data", described(content))
    assert names(tmp_path / "data") == set()
    assert not Path("/etc/helm-escaped").exists() and not Path("/tmp/helm-escaped").exists()


def test_program_reports_the_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong").write_bytes(b"x")
    assert main(["--into", str(tmp_path), "--file", str(tmp_path / "wrong")]) == 1
    output = capsys.readouterr()
    assert output.out == "" and f"instead of {KEYCLOAK.size}" in output.err


def test_an_archive_of_any_version_is_known_by_its_content(tmp_path: Path) -> None:
    """Another name of its own for the same version, so that both can be unpacked side by side."""
    file = tmp_path / "given.tar.gz"
    file.write_bytes(GOOD)
    found = artefact_of(file)
    assert (found.version, found.size, found.sha256) == ("1.2.3", len(GOOD), hashlib.sha256(GOOD).hexdigest())
    first = unpack(file, tmp_path, found)
    second = unpack(file, tmp_path, found, name="keycloak-1.2.3-other")
    assert (first.name, second.name) == ("keycloak-1.2.3", "keycloak-1.2.3-other")
    assert unpacked(tmp_path, found, "keycloak-1.2.3-other") == second


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        GOOD[:20],
        archive((member("other-1.2.3/x"), b"")),
        archive((member("keycloak-x/y"), b"")),
        archive((member("keycloak-1.2.3.jar"), b"")),
    ],
    ids=["empty", "text", "cut off", "of another program", "without a version", "a single file"],
)
def test_what_is_no_archive_of_keycloak_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "given.tar.gz"
    file.write_bytes(content)
    with pytest.raises(FetchError, match="given"):
        artefact_of(file)


@pytest.mark.parametrize(
    ("version", "than", "said"),
    [("26.4.0", "26.10.0", True), ("26.10.0", "26.4.0", False), ("26.4.0", "26.4.0", False), ("9.0", "26.4.0", True)],
)
def test_versions_are_compared_as_numbers(version: str, than: str, said: bool) -> None:
    assert older(version, than) is said


def test_a_successor_gets_the_files_of_the_admin(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for home, files in (
        (
            old,
            ("conf/keycloak.conf", "conf/cache-ispn.xml", "providers/own.jar", "themes/ours/theme.properties", "lib/a"),
        ),
        (new, ("conf/keycloak.conf", "conf/cache-ispn.xml", "providers/README.md")),
    ):
        for name in files:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(home.name)
    keep_own_files(old, new)
    found = {str(path.relative_to(new)): path.read_text() for path in new.rglob("*") if path.is_file()}
    assert found == {
        "conf/keycloak.conf": "old",
        "conf/cache-ispn.xml": "new",
        "providers/README.md": "new",
        "providers/own.jar": "old",
        "themes/ours/theme.properties": "old",
    }
