"""What this host and its user manager support."""

import json

from helmd.files.durable import write_atomically
from helmd.model.layout import Layout
from helmd.systemd.bus import Manager
from helmd.systemd.host import Host, delegated_controllers, probe_host


def host_of(layout: Layout) -> Host:
    """Return what this host supports; checked once and saved in the account's state directory."""
    path = layout.state / "host.json"
    try:
        known = json.loads(path.read_text())
        return Host(int(known["systemd"]), bool(known["user_namespaces"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return remember_host(layout)


def remember_host(layout: Layout) -> Host:
    """Check what this host supports, save it, and return it."""
    host = probe_host()
    layout.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps({"systemd": host.systemd, "user_namespaces": host.user_namespaces}) + "\n"
    write_atomically(layout.state / "host.json", text)
    return host


def controllers_of(manager: Manager) -> frozenset[str]:
    """Return the cgroup controllers with which MANAGER can enforce limits."""
    group, _, _ = manager.facts("init.scope").control_group.rpartition("/")
    return delegated_controllers(group)
