"""Pairs of a private key and a certificate or public key in files: read, checked, written whole.

Their directories may belong to services, so they are reached by descriptor and no link in them is followed. No key that
is there is changed: what can't be used is an error. A self-signed certificate of Helm's gets a successor for the same
key (`renew_certificate`), and a pair that is replaced because its owner wants that (`install_pair`) is kept beside it.
"""

import datetime
import errno
import ipaddress
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from helmd.files.beneath import opened_directory
from helmd.files.durable import write_in
from helmd.model.errors import HelmError

PUBLIC_PEM = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class KeyFileError(HelmError):
    """A key or certificate is there but can't be used as it is; nothing was changed."""

    code: ClassVar[str] = "key_file"


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A self-signed certificate to make: its names, and from when until when it is valid."""

    name: str
    others: tuple[str, ...]
    """Further DNS names and IP addresses."""
    begin: datetime.datetime
    end: datetime.datetime


def ensure_certificate(certificate: Path, key_file: Path, wanted: CertificateRequest) -> bool:
    """Make the pair in CERTIFICATE and KEY_FILE, of one directory, when both are missing; True when it did.

    The certificate is for this machine only: ``localhost`` and its addresses besides the names WANTED. Raises
    KeyFileError when a half of a pair is missing or can't be used, or when the two don't belong together.
    """
    folder = Folder(certificate.parent)
    if folder.finish_interrupted(key_file.name, certificate.name):
        return True
    folder.finish_replacing(key_file.name, certificate.name)
    content, key_content = folder.read(certificate.name), folder.read(key_file.name)
    if content is not None and key_content is not None:
        check_pair(key_file, key_content, certificate, content)
        return False
    if content is not None or key_content is not None:
        raise half(certificate, key_file) if content is not None else half(key_file, certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    built = _self_signed(key, wanted)
    folder.write_pair(
        (key_file.name, pem(key), 0o600),
        (certificate.name, built.public_bytes(serialization.Encoding.PEM), 0o644),
    )
    return True


def renew_certificate(certificate: Path, key_file: Path, wanted: CertificateRequest, at: datetime.datetime) -> bool:
    """Make a successor for the certificate that `ensure_certificate` has made, if that ends before AT or lacks a name
    that is WANTED; True when it did. The key stays, and so does any other certificate. Raises as `ensure_certificate`.
    """
    folder = Folder(certificate.parent)
    content, key_content = folder.read(certificate.name), folder.read(key_file.name)
    if content is None or key_content is None:
        raise half(certificate, key_file) if content is not None else half(key_file, certificate)
    if check_pair(key_file, key_content, certificate, content) is None:
        return False
    found = x509.load_pem_x509_certificate(content)
    key = serialization.load_pem_private_key(key_content, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not _is_ours(found):
        return False
    names = {each.value for each in _alternatives(found)}
    if valid_until(found) > at and names >= {each.value for each in _general_names(wanted)}:
        return False
    renewed = _self_signed(key, wanted).public_bytes(serialization.Encoding.PEM)
    with opened_directory(folder.path) as descriptor:
        write_in(descriptor, certificate.name, renewed, 0o644)
    return True


def _alternatives(certificate: x509.Certificate) -> list[x509.DNSName | x509.IPAddress]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [each for each in found if isinstance(each, x509.DNSName | x509.IPAddress)]


def _is_ours(certificate: x509.Certificate) -> bool:
    """Return whether it is self-signed as Helm makes them: by its issuer and the names that it begins with."""
    always = [each.value for each in _ALWAYS]
    return (
        certificate.issuer == certificate.subject
        and [each.value for each in _alternatives(certificate)[: len(always)]] == always
    )


def public_pem(certificate: x509.Certificate) -> bytes:
    """Return the public key in a certificate."""
    return certificate.public_key().public_bytes(*PUBLIC_PEM)


def valid_from(certificate: x509.Certificate) -> datetime.datetime:
    return _time(certificate, "not_valid_before")


def valid_until(certificate: x509.Certificate) -> datetime.datetime:
    return _time(certificate, "not_valid_after")


def _time(certificate: x509.Certificate, name: str) -> datetime.datetime:
    # Naive before cryptography 42, which has others and, for these, a warning that reaches the terminal.
    found: datetime.datetime | None = getattr(certificate, f"{name}_utc", None)
    return found or getattr(certificate, name).replace(tzinfo=datetime.UTC)


_ALWAYS: tuple[x509.DNSName | x509.IPAddress, ...] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
)


def _general_names(wanted: CertificateRequest) -> list[x509.DNSName | x509.IPAddress]:
    names: list[x509.DNSName | x509.IPAddress] = list(_ALWAYS)
    for other in wanted.others:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(other)))
        except ValueError:
            names.append(x509.DNSName(other))
    return names


def _self_signed(key: ec.EllipticCurvePrivateKey, wanted: CertificateRequest) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.name)])
    alternatives: list[x509.GeneralName] = list(_general_names(wanted))
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(wanted.begin)
        .not_valid_after(wanted.end)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )


def pem(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def half(present: Path, missing: Path) -> KeyFileError:
    return KeyFileError(
        f"{present} is there, but {missing} is not; nothing was changed",
        hint=f"Put {missing.name} there, or move {present.name} away, then: helmctl setup",
    )


def check_pair(private: Path, private_content: bytes, public: Path, public_content: bytes | None) -> bytes | None:
    """Check that PRIVATE holds a private key and PUBLIC, where there is one, its certificate or public key.

    Return the public key that belongs to it, or None for a key that can't be read and so can't be compared. Raises
    KeyFileError.
    """
    try:
        key = serialization.load_pem_private_key(private_content, None)
    except (TypeError, UnsupportedAlgorithm):
        # Encrypted, or of a kind that only the service knows: it can't be compared, and is the admin's choice.
        return None
    except ValueError:
        raise KeyFileError(
            f"{private} holds no private key in PEM form; nothing was changed",
            hint=f"Put a key there, or move {private.name} and {public.name} away, then: helmctl setup",
        ) from None
    derived: bytes = key.public_key().public_bytes(*PUBLIC_PEM)
    if public_content is None:
        return derived
    try:
        other = (
            x509.load_pem_x509_certificate(public_content).public_key()
            if b"CERTIFICATE-----" in public_content
            else serialization.load_pem_public_key(public_content)
        )
    except UnsupportedAlgorithm:
        return derived
    except ValueError:
        raise KeyFileError(
            f"{public} holds no certificate or public key in PEM form; nothing was changed",
            hint=f"Put a valid one there, or move {private.name} and {public.name} away, then: helmctl setup",
        ) from None
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != other.public_bytes(*form):
        raise KeyFileError(
            f"{private} and {public} do not belong together; nothing was changed",
            hint="Put a matching pair there, or move both away, then: helmctl setup",
        )
    return derived


def install_pair(certificate: Path, key_file: Path, content: bytes, key_content: bytes) -> bool:
    """Put a certificate and its key into CERTIFICATE and KEY_FILE; False if they are there already.

    What was there is kept as ``NAME.before``. Raises KeyFileError if the two don't belong together or can't be used.
    """
    if check_pair(key_file, key_content, certificate, content) is None or b"CERTIFICATE-----" not in content:
        raise KeyFileError("the key is encrypted or of a kind that can't be compared, or there is no certificate")
    folder = Folder(certificate.parent)
    folder.finish_interrupted(key_file.name, certificate.name)
    folder.finish_replacing(key_file.name, certificate.name)
    if (folder.read(certificate.name), folder.read(key_file.name)) == (content, key_content):
        return False
    folder.replace_pair((key_file.name, key_content, 0o600), (certificate.name, content, 0o644))
    return True


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory in a service's checkout; the checkout itself is where the configuration says."""

    path: Path

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """Yield a descriptor of the directory, or None when there is none."""
        with ExitStack() as stack:
            try:
                descriptor: int | None = stack.enter_context(opened_directory(self.path))
            except FileNotFoundError:
                descriptor = None
            except OSError as error:
                place = error.filename or self.path
                linked = error.errno == errno.ELOOP
                raise KeyFileError(
                    f"{place} is a symbolic link" if linked else f"{place} is not a directory: {error.strerror}",
                    hint="Put a directory in its place, or set path to the real one, then: helmctl setup",
                ) from None
            yield descriptor

    @contextmanager
    def opened_for_writing(self) -> Iterator[int]:
        """Yield a descriptor of the directory, which is made when it is missing, with mode 0700."""
        with suppress(OSError), opened_directory(self.path.parent) as above:
            os.mkdir(self.path.name, 0o700, dir_fd=above)
        with self._opened() as descriptor:
            if descriptor is None:
                raise KeyFileError(
                    f"{self.path} can't be made", hint="Let this account write there, then: helmctl setup"
                )
            os.fchmod(descriptor, 0o700)
            yield descriptor

    def read(self, name: str) -> bytes | None:
        """Return the content of the file NAME, or None when there is none.

        Raises KeyFileError for one that can't be used.
        """
        path = self.path / name
        with self._opened() as folder:
            if folder is None:
                return None
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                return None
            except OSError as error:
                what = "is a symbolic link" if path.is_symlink() else f"can't be read ({error.strerror})"
                raise _unusable(path, what) from None
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise _unusable(path, "is not a regular file")
                content = os.read(descriptor, _MOST + 1)
            finally:
                os.close(descriptor)
        if not content.strip():
            raise _unusable(path, "is empty")
        if len(content) > _MOST:
            raise _unusable(path, f"is larger than {_MOST // 1024} KiB")
        return content

    def write_pair(self, *files: tuple[str, bytes, int]) -> None:
        """Write both FILES (name, content, mode) durably: complete beside their places first, then linked there.

        A run that ended between the two links is completed by `finish_interrupted`.
        """
        with self.opened_for_writing() as folder:
            for name, content, mode in files:
                write_in(folder, _staged(name), content, mode)
            for name, _, _ in files:
                os.link(_staged(name), name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            os.fsync(folder)
            for name, _, _ in files:
                os.unlink(_staged(name), dir_fd=folder)

    def replace_pair(self, *files: tuple[str, bytes, int]) -> None:
        """Replace both FILES durably, and keep what was there as NAME.before: a run that ends in between is completed
        by `finish_replacing`.
        """
        with self.opened_for_writing() as folder:
            for name, _, _ in files:
                with suppress(FileNotFoundError):
                    os.unlink(f"{name}.before", dir_fd=folder)
                with suppress(FileNotFoundError):
                    os.link(name, f"{name}.before", src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            for name, content, mode in files:
                write_in(folder, _replacing(name), content, mode)
        self.finish_replacing(*(name for name, _, _ in files))

    def finish_replacing(self, first: str, second: str) -> None:
        """Put what `replace_pair` has written into its place, if all of it was written."""
        with self._opened() as folder:
            if folder is None:
                return
            if _inode(folder, _replacing(second)) is None:
                # It ended before both were written; the second is moved last.
                with suppress(FileNotFoundError):
                    os.unlink(_replacing(first), dir_fd=folder)
                return
            for name in (first, second):
                with suppress(FileNotFoundError):
                    os.rename(_replacing(name), name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def finish_interrupted(self, *names: str) -> bool:
        """Put the second half of a pair in its place after a `write_pair` that was cut off; True when it did."""
        with self._opened() as folder:
            if folder is None:
                return False
            present = {name: found for name in names if (found := _inode(folder, name))}
            staged = {name: found for name in names if (found := _inode(folder, _staged(name)))}
            (missing,) = [name for name in names if name not in present] if len(present) == 1 else [""]
            finished = bool(missing) and len(staged) == len(names) and present.items() <= staged.items()
            if finished:
                os.link(_staged(missing), missing, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                os.fsync(folder)
            for name in staged:
                os.unlink(_staged(name), dir_fd=folder)
        return finished


_MOST = 1024 * 1024
"""Bytes that a key or a chain of certificates may have."""


def _staged(name: str) -> str:
    return f".{name}.staged"


def _replacing(name: str) -> str:
    return f".{name}.replacing"


def _inode(folder: int, name: str) -> tuple[int, int] | None:
    """Return what identifies the file NAME on this machine, or None when there is none."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _unusable(path: Path, what: str) -> KeyFileError:
    return KeyFileError(
        f"{path} {what}; nothing was changed", hint="Put a valid file there, or move it away, then: helmctl setup"
    )
