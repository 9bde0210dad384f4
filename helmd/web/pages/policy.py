"""The Content-Security-Policy of pages (CSP Level 3), and which paths a redirect may lead to. No I/O."""

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from helmd.model.identity.injected import NOTHING_INJECTED, Injected
from helmd.web.http.problems import PREFIX

HOME = f"{PREFIX}/"
STATIC_PATH = f"{HOME}static/"
TRUSTED_TYPES_POLICY = "helm"
"""The name of the one policy of helm.js (Trusted Types)."""
LONGEST_TARGET = 2000

_NONE = "'none'"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:]{2,45}\])(?::[0-9]{1,5})?\Z")
_PATH = re.compile(r"/helm/[\x21-\x5b\x5d-\x7e]*\Z")


_TRUSTED_TYPES = f"require-trusted-types-for 'script'; trusted-types {TRUSTED_TYPES_POLICY}"


def direct_policy() -> str:
    """For pages that come from helmd itself: its own files and nothing else, and no markup from text in scripts."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        f"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; {_TRUSTED_TYPES}"
    )


def gateway_policy(headers: Mapping[str, str], injected: Injected = NOTHING_INJECTED) -> str:
    """For pages that pass through the gateway, whose HEADERS say how it is reached; INJECTED is what it adds to them.

    Every module shares its origin, so scripts are allowed by Helm's own path and by the exact ones of the gateway, not
    by origin; inline ones by their hash. Scripts in attributes are not: with ``'unsafe-hashes'`` an attribute of any
    element could hold an allowed one. Trusted Types bind the gateway's scripts, too.
    """
    host, scheme = headers.get("X-Forwarded-Host", ""), headers.get("X-Forwarded-Proto", "")
    paths = (STATIC_PATH, *injected.script_paths) if scheme in ("http", "https") and _HOST.match(host) else ()
    scripts = [f"{scheme}://{host.lower()}{path}" for path in paths]
    scripts += [f"'{source}'" for source in injected.scripts]
    styles = ["'self'", *(f"'{source}'" for source in injected.styles)]
    return (
        f"default-src 'none'; script-src {' '.join(scripts) or _NONE}; style-src {' '.join(styles)}; font-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        f"{_TRUSTED_TYPES}"
    )


def own_path(target: str) -> str:
    """Return TARGET if it is the path of a page of Helm's, else `HOME`: so that a link to a login leads nowhere
    else.
    """
    if len(target) > LONGEST_TARGET or not _PATH.match(target):
        return HOME
    path = unquote(urlsplit(target).path)
    if "//" in path or "\\" in path or any(part in (".", "..") for part in path.split("/")):
        return HOME
    return HOME if path.startswith(("/helm/login", "/helm/logout", "/helm/static/")) else target
