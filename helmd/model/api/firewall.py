"""Query and reply of ``GET /api/security/firewall-script``."""

from dataclasses import dataclass, field

from helmd.model.json_fields import described
from helmd.model.security.firewall import FirewallKind


@dataclass(frozen=True, slots=True)
class FirewallScriptQuery:
    """Which script. The tool's name stands in ``type``."""

    type: FirewallKind = field(default="nftables", metadata=described("by which tool", example="nftables"))
    open: str | None = field(
        default=None,
        metadata=described(
            "what others may reach besides SSH and the gateway: services and ports, separated by commas",
            example="knowledgetree,51820/udp",
            omitted=True,
        ),
    )
    allow_from: str | None = field(
        default=None,
        metadata=described(
            "networks from which that can be reached, separated by commas; from all without it",
            example="192.168.1.0/24,fd00::/8",
            omitted=True,
        ),
    )


@dataclass(frozen=True, slots=True)
class FirewallScriptReply:
    """A script that sets up the firewall. It is run as root, and undoes by itself what is not confirmed in time."""

    filename: str = field(metadata=described("under which it is saved", example="hivematrix-firewall-nftables.sh"))
    script: str = field(metadata=described("for sh(1)", example="#!/bin/sh\n"))
