"""The few variables of the caller that a command in the sandbox gets."""

import os

PROXY_VARIABLES = tuple(
    spelling
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
    for spelling in (name, name.upper())
)


def proxies() -> dict[str, str]:
    return {name: os.environ[name] for name in PROXY_VARIABLES if name in os.environ}


def passed_on() -> dict[str, str]:
    """Proxies, without which nothing is fetched, and the terminal's kind; nothing else of the host leaks in."""
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    return proxies() | terminal
