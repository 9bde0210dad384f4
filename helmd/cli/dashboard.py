"""``helmctl dashboard``: a one-time link that logs the owner of this machine in."""

import os
import socket
from urllib.parse import urlsplit

import click

from helmd.cli import output
from helmd.cli.client import Wait, document, request
from helmd.cli.context import Context
from helmd.files.account_names import name_of_uid

_ANSWER_SECONDS = 5.0
LINKS_ROUTE = "/api/login-links"


@click.command("dashboard", short_help="Print a link that opens the dashboard.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def dashboard_command(context: Context, as_json: bool) -> None:
    """Print a link that opens the dashboard as the owner of this machine.

    It works once, within a minute, and needs neither Keycloak nor Core nor the gateway: helmd alone. Who opens it is
    an admin until the session ends (session.idle and session.longest in helm.toml(5)). From another machine, open it
    through ssh; the command for that is printed.
    """
    with_link = document(request(context.suite_layout.socket, LINKS_ROUTE, {}, Wait(_ANSWER_SECONDS), method="POST"))
    url, seconds = str(with_link["url"]), int(with_link["expires_in"])
    tunnel = ssh_command(url)
    if as_json:
        output.print_json({"url": url, "expires_in": seconds, "ssh": tunnel})
        return
    output.print_line(url)
    output.print_message(f"Open it within {seconds} s; it works once, and makes you an admin.")
    output.print_message(f"From another machine, first run there: {tunnel}")


def ssh_command(url: str) -> str:
    """Return the command that makes URL work on another machine, as far as this one knows its own name."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    user = os.environ.get("SUDO_USER") or name_of_uid(os.getuid())
    name = socket.getfqdn()
    return f"ssh -N -L {port}:localhost:{port} {user}@{socket.gethostname() if name.startswith('localhost') else name}"
