"""Keys and certificates in checkouts: made whole or not at all, and nothing that is there is replaced."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from helmd.files.key_pair import KeyFileError, install_pair
from helmd.model.layout import layout
from helmd.model.suite.service import Registry, Service
from helmd.operations.configuration import keys
from helmd.operations.configuration.keys import gateway_certificate, signing_key
from helmd.operations.configuration.renewal import renew_if_due

Make = Callable[[Path], Path | None]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    made = tmp_path / "checkout"
    made.mkdir()
    return made


def snapshot(directory: Path) -> dict[str, tuple[int, int, int, bytes | str]]:
    """Return all that is below DIRECTORY: inode, mode, time of change and content or target of each."""
    found: dict[str, tuple[int, int, int, bytes | str]] = {}
    for path in sorted(directory.rglob("*")):
        facts = path.lstat()
        content: bytes | str = b""
        if path.is_symlink():
            content = os.readlink(path)
        elif stat.S_ISREG(facts.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(directory))] = (facts.st_ino, facts.st_mode, facts.st_mtime_ns, content)
    return found


def belong_together(checkout: Path) -> bool:
    """Return whether the pair in CHECKOUT is a certificate and its key, as OpenSSL reads them."""
    said = [
        subprocess.run(["openssl", *words], cwd=checkout / "certs", capture_output=True, check=True).stdout
        for words in (["x509", "-in", "nexus.crt", "-pubkey", "-noout"], ["pkey", "-in", "nexus.key", "-pubout"])
    ]
    return said[0] == said[1]


def test_both_are_made_once_and_private(checkout: Path) -> None:
    assert signing_key(checkout) == checkout / "keys/jwt_private.pem"
    assert gateway_certificate(checkout) == checkout / "certs/nexus.crt"
    assert belong_together(checkout)
    modes = {name: stat.S_IMODE(mode) for name, (_, mode, _, _) in snapshot(checkout).items()}
    assert modes == {
        "keys": 0o700, "keys/jwt_private.pem": 0o600, "keys/jwt_public.pem": 0o644,
        "certs": 0o700, "certs/nexus.crt": 0o644, "certs/nexus.key": 0o600,
    }  # fmt: skip
    before = snapshot(checkout)
    assert signing_key(checkout) is None and gateway_certificate(checkout) is None
    assert snapshot(checkout) == before
    certificate = x509.load_pem_x509_certificate((checkout / "certs/nexus.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)


def test_an_admins_own_files_are_left_alone(checkout: Path) -> None:
    """An RSA pair with a chain, a key of OpenSSL's older kind, an encrypted key."""
    (checkout / "certs").mkdir()
    (checkout / "certs/README").write_text("ours")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=a", "-keyout", "nexus.key", "-out"]
    subprocess.run([*make, "nexus.crt", "-nodes"], cwd=checkout / "certs", check=True, capture_output=True)
    chain = (checkout / "certs/nexus.crt").read_text()
    (checkout / "certs/nexus.crt").write_text(f"subject=CN = a\n{chain}{chain}")
    (checkout / "keys").mkdir()
    ecdsa = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-out", "jwt_private.pem"]
    subprocess.run(ecdsa, cwd=checkout / "keys", check=True, capture_output=True)
    before = snapshot(checkout)
    assert gateway_certificate(checkout) is None and signing_key(checkout) is None
    pair = snapshot(checkout)
    public = pair.pop("keys/jwt_public.pem")
    assert {name: facts[3] for name, facts in pair.items()} == {name: facts[3] for name, facts in before.items()}
    shown = ["openssl", "pkey", "-in", "jwt_private.pem", "-pubout"]
    said = subprocess.run(shown, cwd=checkout / "keys", capture_output=True, check=True).stdout
    assert public[3] == said, "the public key that Core reads as well is derived from an admin's private one"
    encrypted = [*make, "nexus.crt", "-passout", "pass:secret"]
    subprocess.run(encrypted, cwd=checkout / "certs", check=True, capture_output=True)
    assert b"ENCRYPTED" in (checkout / "certs/nexus.key").read_bytes()
    assert gateway_certificate(checkout) is None


def names_of(checkout: Path) -> list[str]:
    """Return the names in the gateway's certificate, as OpenSSL prints them."""
    words = ["openssl", "x509", "-in", "certs/nexus.crt", "-noout", "-ext", "subjectAltName"]
    said = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True).stdout
    return said.splitlines()[1].strip().split(", ")


def ends(checkout: Path) -> datetime:
    words = ["openssl", "x509", "-in", "certs/nexus.crt", "-noout", "-enddate"]
    said = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True).stdout
    return datetime.strptime(said.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)


def test_helms_own_certificate_is_renewed_before_it_expires_and_for_another_name(checkout: Path) -> None:
    """With the same key, so that nothing but the certificate changes, and not a day too early."""
    now = datetime.now(UTC)
    gateway_certificate(checkout, "desk.example")
    assert {"DNS:localhost", "DNS:desk.example"} <= set(names_of(checkout))
    key, first = (checkout / "certs/nexus.key").read_bytes(), ends(checkout)
    assert gateway_certificate(checkout, "desk.example", first - timedelta(days=31)) is None
    late = first - timedelta(days=29)
    assert gateway_certificate(checkout, "desk.example", late) == checkout / "certs/nexus.crt"
    assert ends(checkout) - late > timedelta(days=820)
    assert (checkout / "certs/nexus.key").read_bytes() == key and belong_together(checkout)
    assert gateway_certificate(checkout, "desk.example", late) is None

    assert gateway_certificate(checkout, "192.0.2.7", now) == checkout / "certs/nexus.crt"
    assert "IP Address:192.0.2.7" in names_of(checkout) and "DNS:desk.example" not in names_of(checkout)
    assert stat.S_IMODE((checkout / "certs/nexus.crt").stat().st_mode) == 0o644
    assert [path.name for path in sorted((checkout / "certs").iterdir())] == ["nexus.crt", "nexus.key"]


def test_helmd_renews_what_set_up_has_made(checkout: Path) -> None:
    registry = Registry({"nexus": Service("nexus", url="https://desk.example", path=str(checkout))})
    place = layout({}, checkout, os.getuid(), checkout)
    assert renew_if_due(registry, place) == "" and not (checkout / "certs").exists(), "making it is up to set-up"
    gateway_certificate(checkout, "desk.example", datetime.now(UTC) - timedelta(days=800))
    said = renew_if_due(registry, place)
    assert said == f"renewed the certificate of nexus ({checkout}/certs/nexus.crt); to show it: helmctl restart nexus"
    assert ends(checkout) - datetime.now(UTC) > timedelta(days=820) and renew_if_due(registry, place) == ""
    (checkout / "certs/nexus.key").write_text("")
    with pytest.raises(KeyFileError):
        renew_if_due(registry, place)
    assert renew_if_due(Registry({}), place) == ""


def own_pair(directory: Path, *more: str) -> tuple[Path, Path]:
    """Return a self-signed pair of the admin's own that expires tomorrow."""
    directory.mkdir()
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=desk.example"]
    subprocess.run(
        [*words, "-keyout", "own.key", "-out", "own.crt", *more], cwd=directory, check=True, capture_output=True
    )
    return directory / "own.crt", directory / "own.key"


def test_an_admins_own_certificate_is_never_renewed(checkout: Path, tmp_path: Path) -> None:
    gateway_certificate(checkout)
    certificate, key = own_pair(tmp_path / "own", "-addext", "subjectAltName=DNS:localhost")
    assert install_pair(
        checkout / "certs/nexus.crt", checkout / "certs/nexus.key", certificate.read_bytes(), key.read_bytes()
    )
    before = snapshot(checkout)
    assert gateway_certificate(checkout, "desk.example") is None
    assert snapshot(checkout) == before


def test_a_pair_that_is_given_replaces_the_other_which_is_kept(checkout: Path, tmp_path: Path) -> None:
    gateway_certificate(checkout)
    places = checkout / "certs/nexus.crt", checkout / "certs/nexus.key"
    first = [place.read_bytes() for place in places]
    certificate, key = own_pair(tmp_path / "own")
    given = certificate.read_bytes(), key.read_bytes()
    assert install_pair(*places, *given) and not install_pair(*places, *given)
    assert tuple(place.read_bytes() for place in places) == given and belong_together(checkout)
    assert [(checkout / f"certs/{place.name}.before").read_bytes() for place in places] == first
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (checkout / "certs").iterdir()}
    assert modes == {"nexus.crt": 0o644, "nexus.key": 0o600, "nexus.crt.before": 0o644, "nexus.key.before": 0o600}

    other, other_key = own_pair(tmp_path / "other")
    for pair in ((other, key), (other_key, key), (other, other)):
        with pytest.raises(KeyFileError):
            install_pair(*places, *(file.read_bytes() for file in pair))
    assert tuple(place.read_bytes() for place in places) == given


def test_killed_at_any_step_a_pair_that_is_given_is_there_whole_or_not_at_all(checkout: Path, tmp_path: Path) -> None:
    certificate, key = own_pair(tmp_path / "own")
    given = certificate.read_bytes(), key.read_bytes()
    gateway_certificate(checkout)
    shutil.copytree(checkout / "certs", tmp_path / "kept")
    places = checkout / "certs/nexus.crt", checkout / "certs/nexus.key"
    first = tuple(place.read_bytes() for place in places)
    seen = set()
    for step in range(1, 200):
        shutil.rmtree(checkout / "certs")
        shutil.copytree(tmp_path / "kept", checkout / "certs")
        if not killed_at(step, partial(install_pair, *places, *given)):
            break
        assert gateway_certificate(checkout) is None, "the next set-up finds, or completes, one of the two"
        found = tuple(place.read_bytes() for place in places)
        assert found in (first, given)
        assert not list((checkout / "certs").glob(".*.replacing"))
        seen.add(found == given)
    else:
        pytest.fail("it is not over after 200 steps")
    assert seen == {True, False}


def remove_certificate(checkout: Path) -> None:
    (checkout / "certs/nexus.crt").unlink()


def remove_key(checkout: Path) -> None:
    (checkout / "certs/nexus.key").unlink()


def replace_key(checkout: Path) -> None:
    other = checkout.parent / "other"
    other.mkdir()
    gateway_certificate(other)
    (other / "certs/nexus.key").rename(checkout / "certs/nexus.key")


def fill(name: str, content: bytes) -> Callable[[Path], None]:
    def change(checkout: Path) -> None:
        (checkout / name).write_bytes(content)

    return change


def link(name: str, target: str) -> Callable[[Path], None]:
    """Replace NAME by a link to TARGET beside the checkout, to which the original is moved."""

    def change(checkout: Path) -> None:
        if target != "nowhere":
            (checkout / name).rename(checkout.parent / target)
        else:
            (checkout / name).unlink()
        (checkout / name).symlink_to(checkout.parent / target)

    return change


def pipe(name: str) -> Callable[[Path], None]:
    def change(checkout: Path) -> None:
        (checkout / name).unlink()
        os.mkfifo(checkout / name)

    return change


def public_half_alone(checkout: Path) -> None:
    key = serialization.load_pem_private_key((checkout / "keys/jwt_private.pem").read_bytes(), None)
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (checkout / "keys/jwt_public.pem").write_bytes(key.public_key().public_bytes(*form))
    (checkout / "keys/jwt_private.pem").unlink()


def public_half_of_another(checkout: Path) -> None:
    public_half_alone(checkout)
    (checkout / "keys/jwt_public.pem").rename(checkout / "kept.pem")
    signing_key(checkout)
    (checkout / "kept.pem").rename(checkout / "keys/jwt_public.pem")


FAULTS: dict[str, tuple[Make, Callable[[Path], None], str]] = {
    "certificate missing": (gateway_certificate, remove_certificate, "nexus.key is there, but .*nexus.crt is not"),
    "key missing": (gateway_certificate, remove_key, "nexus.crt is there, but .*nexus.key is not"),
    "halves of two pairs": (gateway_certificate, replace_key, "do not belong together"),
    "certificate empty": (gateway_certificate, fill("certs/nexus.crt", b""), "nexus.crt is empty"),
    "key of blanks": (gateway_certificate, fill("certs/nexus.key", b" \n"), "nexus.key is empty"),
    "certificate of zeros": (gateway_certificate, fill("certs/nexus.crt", bytes(512)), "holds no certificate"),
    "key of zeros": (gateway_certificate, fill("certs/nexus.key", bytes(512)), "holds no private key"),
    "key too large": (gateway_certificate, fill("certs/nexus.key", b"x" * 2**21), "larger than"),
    "certificate a link": (gateway_certificate, link("certs/nexus.crt", "a.crt"), "nexus.crt is a symbolic link"),
    "key a link to nothing": (gateway_certificate, link("certs/nexus.key", "nowhere"), "nexus.key is a symbolic link"),
    "key a pipe": (gateway_certificate, pipe("certs/nexus.key"), "nexus.key is not a regular file"),
    "directory a link": (gateway_certificate, link("certs", "elsewhere"), "certs is a symbolic link"),
    "signing key empty": (signing_key, fill("keys/jwt_private.pem", b""), "private.pem is empty"),
    "signing key of zeros": (signing_key, fill("keys/jwt_private.pem", bytes(99)), "holds no private key"),
    "signing key a link": (signing_key, link("keys/jwt_private.pem", "a.pem"), "private.pem is a symbolic link"),
    "signing key a link to nothing": (signing_key, link("keys/jwt_private.pem", "nowhere"), "is a symbolic link"),
    "private half missing": (signing_key, public_half_alone, "jwt_public.pem is there, but .*jwt_private.pem is not"),
    "halves of two signing keys": (signing_key, public_half_of_another, "do not belong together"),
    "keys a link": (signing_key, link("keys", "elsewhere"), "keys is a symbolic link"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_is_an_error_and_stays_as_it_is(checkout: Path, fault: str) -> None:
    make, change, message = FAULTS[fault]
    make(checkout)
    change(checkout)
    before, outside = snapshot(checkout), snapshot(checkout.parent)
    with pytest.raises(KeyFileError, match=message) as caught:
        make(checkout)
    assert "helmctl setup" in caught.value.hint
    assert (snapshot(checkout), snapshot(checkout.parent)) == (before, outside)


@pytest.mark.parametrize("name", ["certs/nexus.key", "certs/nexus.crt", "keys/jwt_private.pem"])
def test_what_cannot_be_read_is_an_error(checkout: Path, name: str) -> None:
    """As an account without rights, since root may read everything."""
    make: Make = signing_key if name.startswith("keys") else gateway_certificate
    make(checkout)
    # Whoever tries it reaches the file, and may not read it.
    for place in (*checkout.iterdir(), checkout, *checkout.parents):
        if place.stat().st_uid == os.geteuid() and place.is_relative_to(tempfile.gettempdir()):
            place.chmod(place.stat().st_mode | 0o055)
    before, mode = snapshot(checkout), (checkout / name).stat().st_mode
    (checkout / name).chmod(0)
    assert "can't be read (Permission denied)" in as_another(lambda: make(checkout))
    (checkout / name).chmod(mode)
    assert snapshot(checkout) == before


def as_another(work: Callable[[], object]) -> str:
    """Return the sentence of the KeyFileError that WORK raises in a process without root's rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            work()
        except KeyFileError as error:
            os.write(writer, error.sentence.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as said:
        return said.read()


STEPS = ("mkdir", "open", "fsync", "rename", "link", "unlink", "write")


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do WORK in a child that ends, without cleaning up, at its STEP-th system call; return whether it got there."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(name: str) -> Callable[..., object]:
            real = getattr(os, name)

            def call(*words: object, **how: object) -> object:
                nonlocal count
                count += 1
                if count == step:
                    os._exit(9)
                return real(*words, **how)

            return call

        for name in STEPS:
            setattr(os, name, counted(name))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("kept", [False, True], ids=["new directory", "directory with other files"])
def test_killed_at_any_step_the_next_run_completes_it(tmp_path: Path, kept: bool) -> None:
    """Also with the next run killed, at whichever step."""
    interrupted = 0
    step = 0
    while True:
        step += 1
        checkout = tmp_path / f"checkout-{step}"
        (checkout / "certs").mkdir(parents=True) if kept else checkout.mkdir()
        if not killed_at(step, partial(gateway_certificate, checkout)):
            break
        interrupted += 1
        halves = [path for path in (checkout / "certs/nexus.crt", checkout / "certs/nexus.key") if path.exists()]
        killed_at(1 + step % 7, partial(gateway_certificate, checkout))
        gateway_certificate(checkout)
        assert belong_together(checkout), f"after a kill at step {step}, which left {halves}"
        assert not list((checkout / "certs").glob(".*.staged"))
    assert interrupted > 10


def test_killed_at_any_step_the_next_run_completes_the_signing_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half of the size: two keys are made for each step.
    monkeypatch.setattr(keys, "RSA_BITS", keys.RSA_BITS // 2)
    step = 0
    while True:
        step += 1
        checkout = tmp_path / f"checkout-{step}"
        checkout.mkdir()
        if not killed_at(step, partial(signing_key, checkout)):
            break
        signing_key(checkout)
        shown = ["openssl", "pkey", "-in", "jwt_private.pem", "-pubout"]
        said = subprocess.run(shown, cwd=checkout / "keys", capture_output=True, check=True).stdout
        assert (checkout / "keys/jwt_public.pem").read_bytes() == said, f"after a kill at step {step}"
        assert not list((checkout / "keys").glob(".*.staged"))
    assert step > 5
