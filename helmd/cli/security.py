"""``helmctl security``: what is exposed to others and should not be, and the firewall."""

import click


@click.group("security", short_help="Find what is exposed to others, and set up the firewall.")
def security_command() -> None:
    """Find what is exposed to others and should not be, and set up the firewall."""
