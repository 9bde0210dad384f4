"""Environment variables that are passed to commands in the sandbox."""

import os

PROXY_VARIABLES = tuple(
    spelling
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
    for spelling in (name, name.upper())
)


def proxies() -> dict[str, str]:
    return {name: os.environ[name] for name in PROXY_VARIABLES if name in os.environ}


def passed_on() -> dict[str, str]:
    """Return the proxy variables and TERM; no others are passed."""
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    return proxies() | terminal
