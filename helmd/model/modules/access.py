"""What git and ssh said when a repository could not be read: why, and what to do. Their text is of other hosts."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from helmd.model.config.validators import git_source
from helmd.model.modules.source import GitSource

_REDIRECTED = re.compile(r"returned error: 30[1-8]\b")
_LOCATION = re.compile(r"recv header: location:\s*(\S+)", re.IGNORECASE)
_SERVICE = re.compile(r"/info/refs(\?.*)?\Z")


def is_denied(lines: Sequence[str]) -> bool:
    """Return whether the server took no key."""
    return any("permission denied" in line.lower() for line in lines)


def is_redirected(lines: Sequence[str]) -> bool:
    """Return whether the server answered that the repository is elsewhere, which is not followed."""
    return any(_REDIRECTED.search(line) for line in lines)


def redirect_target(lines: Sequence[str]) -> str:
    """Return the URL of a repository to which a server leads, by git's trace of the answer.

    Empty if it can't be one.
    """
    found = next((match[1] for line in lines if (match := _LOCATION.search(line))), "")
    try:
        return git_source(_SERVICE.sub("", found)) if found.startswith("https://") else ""
    except ValueError:
        return ""


def access_fault(
    source: GitSource, name: str, lines: Sequence[str], target: str = "", has_key: bool = False
) -> tuple[str, str]:
    """Return why the repository of the module NAME could not be read, as the end of a sentence, if that is known; and a
    hint.

    TARGET is where the server leads. HAS_KEY: whether the module has a deploy key.
    """
    said = "\n".join(lines).lower()
    if "fsck" in said or "bad object" in said or "repository corruption" in said:
        return "", "The repository has damaged or hostile objects (git fsck says which)."
    if source.kind == "ssh":
        return _of_ssh(source, name, said, has_key)
    if is_redirected(lines):
        return _of_redirect(source, target)
    if "does not match" in said and "certificate" in said:
        return f"{source.host} shows a certificate of another host", "Use the name that is in the certificate."
    if "certificate" in said or "ssl" in said:
        return (
            f"{source.host} does not show a certificate that this machine trusts",
            "For a CA of your own: put its certificate into /usr/local/share/ca-certificates/NAME.crt, and run: "
            "sudo update-ca-certificates",
        )
    if "authentication failed" in said or "could not read username" in said or "returned error: 40" in said:
        return (
            f"{source.host} wants a login for it, or does not have it",
            f"Check the URL. A private repository is read over ssh, by a deploy key: helmctl modules key make {name}",
        )
    return "", "Is the URL right, and can this machine reach it?"


def _of_redirect(source: GitSource, target: str) -> tuple[str, str]:
    if not target:
        return f"{source.host} leads elsewhere, which is not followed", "Find out where the repository is now."
    condition = "it was moved there" if urlsplit(target).hostname == source.host else "you trust that host"
    return f"the server leads to {target}, which is not followed", f"Give that URL, if {condition}."


def _of_ssh(source: GitSource, name: str, said: str, has_key: bool) -> tuple[str, str]:
    if "remote host identification has changed" in said or "host key verification failed" in said:
        return (
            f"{source.host} shows another host key than before; somebody may be in its place",
            f"If its owner confirms that it was replaced: helmctl modules key forget-host {name}",
        )
    if "permission denied" in said:
        if has_key:
            return (
                f"{source.host} does not accept the deploy key of {name}",
                f"Add it to the repository, with the right to read: helmctl modules key show {name}",
            )
        return (
            f"{source.host} wants a key, and {name} has none",
            f"Make one, and add it to the repository, with the right to read: helmctl modules key make {name}",
        )
    if "repository not found" in said or "does not appear to be a git repository" in said:
        return "", "Is the URL right, and was the deploy key given to this repository?"
    return "", "Is the URL right, and can this machine reach it?"
