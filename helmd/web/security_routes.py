"""Routes about the security audit and the firewall."""

from http import HTTPStatus

from helmd.model.api.firewall import FirewallScriptQuery, FirewallScriptReply
from helmd.model.api.security import AcceptedFinding, AcceptFindingRequest, SecurityAuditQuery, SecurityAuditReply
from helmd.web.api.firewall import Firewall
from helmd.web.api.security import Security
from helmd.web.auth.roles import Role
from helmd.web.reply import Reply
from helmd.web.route import Route


def security_routes(security: Security, firewall: Firewall) -> tuple[Route, ...]:
    """Return the routes."""
    acceptance = "/api/security/findings/{id}/accept"
    return (
        Route(
            "GET",
            "/api/security/audit",
            security.audit,
            Role.ADMIN,
            "What is exposed and should not be",
            query=SecurityAuditQuery,
            reply=Reply(SecurityAuditReply),
        ),
        Route(
            "POST",
            acceptance,
            security.accept,
            Role.ADMIN,
            "Accepts a finding until some time",
            recent_login=True,
            request=AcceptFindingRequest,
            reply=Reply(AcceptedFinding, HTTPStatus.CREATED),
        ),
        Route(
            "DELETE",
            acceptance,
            security.withdraw,
            Role.ADMIN,
            "Has an accepted finding count again",
            recent_login=True,
            reply=Reply(AcceptedFinding),
        ),
        Route(
            "GET",
            "/api/security/firewall-script",
            firewall.script,
            Role.ADMIN,
            "A script that sets up the firewall",
            query=FirewallScriptQuery,
            reply=Reply(FirewallScriptReply),
        ),
    )
