"""The security audit: runs the checks independently, and collects their findings. Nothing is changed."""

import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from helmd.model.api.security import SecurityAuditReply
from helmd.model.errors import ConfigurationError, HelmError
from helmd.model.security.findings import SecurityFinding, security_finding
from helmd.model.security.listeners import DeclaredPort, OpenEnd, declared_ports, judge_sockets
from helmd.model.security.report import AuditFacts, audit_reply, firewall_status
from helmd.model.security.settings import judge_trust
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.security.acceptances import AcceptanceStore, accepting
from helmd.operations.security.certificates import audit_certificates
from helmd.operations.security.credentials import audit_logins, audit_passwords
from helmd.operations.security.files import audit_files
from helmd.operations.security.firewall_state import firewall_state
from helmd.operations.security.host import audit_account, audit_kernel, audit_ssh, audit_updates
from helmd.operations.security.sockets import ephemeral_ports, lasting_sockets
from helmd.operations.security.units import audit_environments, audit_sandboxes, audit_units


class _Check(NamedTuple):
    name: str
    examine: Callable[[], Iterable[SecurityFinding]]


class SecurityAudit:
    """An audit of the suite in CONTEXT."""

    def __init__(self, context: DoctorContext) -> None:
        self._context = context
        self._findings: list[SecurityFinding] = []
        self._unchecked: list[str] = []
        self._sockets: list[OpenEnd] = []
        self._declared: tuple[DeclaredPort, ...] = ()

    def run(self) -> AuditFacts:
        """Return the findings. Blocks, for some seconds.

        Raises ConfigurationError where Helm's settings can't be used.
        """
        begun = time.monotonic()
        context = self._context
        self._declared = declared_ports(context.suite, context.settings)
        if context.effective.faults:
            self._unchecked.append("configuration: it has faults; what was last without was looked at (helmctl doctor)")
        state = firewall_state()
        if state.unknown:
            self._unchecked.append(f"firewall: {state.unknown}")
        firewall = firewall_status([each.port for each in self._declared], state)
        protected = firewall.protected_ports
        checks = (
            _Check("sockets", lambda: self._of_sockets(protected)),
            _Check("firewall", lambda: self._of_firewall(firewall.active)),
            _Check("files", self._of_files),
            _Check("sandboxes", lambda: audit_sandboxes(context)),
            _Check("units", lambda: audit_units(context)),
            _Check("environments", lambda: audit_environments(context, self._wide())),
            _Check("trust", lambda: judge_trust(context.settings, context.suite)),
            _Check("logins", lambda: audit_logins(context)),
            _Check("passwords", lambda: audit_passwords(context)),
            _Check("certificates", lambda: audit_certificates(context)),
            _Check("account", lambda: audit_account(context)),
            _Check("kernel", lambda: audit_kernel(context)),
            _Check("ssh", lambda: audit_ssh(context)),
            _Check("updates", lambda: audit_updates(context)),
        )
        for check in checks:
            self._try(check)
        return AuditFacts(
            datetime.now(UTC),
            time.monotonic() - begun,
            self._findings,
            self._sockets,
            self._declared,
            firewall,
            self._unchecked,
        )

    def _try(self, check: _Check) -> None:
        try:
            # One by one, so that findings before a failure are kept.
            for finding in check.examine():
                self._findings.append(finding)
        except ConfigurationError:
            self._unchecked.append(f"{check.name}: the configuration has errors")
        except HelmError as error:
            self._unchecked.append(f"{check.name}: {error.sentence}")
        except subprocess.TimeoutExpired as problem:
            self._unchecked.append(f"{check.name}: {problem.cmd[0]} did not finish within {problem.timeout:g} s")
        except subprocess.CalledProcessError as problem:
            printed = str(problem.stderr or "").strip().splitlines()
            said = f": {printed[-1]}" if printed else ""
            self._unchecked.append(f"{check.name}: {problem.cmd[0]} failed{said}")
        except (OSError, ValueError, LookupError) as problem:
            self._unchecked.append(f"{check.name}: {type(problem).__name__}: {problem}")

    def _of_sockets(self, protected: Iterable[int]) -> Iterable[SecurityFinding]:
        ephemeral = ephemeral_ports()
        table = lasting_sockets(self._context.uid, ephemeral)
        self._sockets = table.ends
        self._unchecked += table.missing
        return judge_sockets(table.ends, self._declared, self._context.uid, ephemeral, protected)

    def _wide(self) -> frozenset[str]:
        """Return the services that other machines can reach."""
        ports = {each.port: each.service for each in self._declared}
        return frozenset(
            ports[each.port]
            for each in self._sockets
            if each.family == "tcp" and each.port in ports and not each.loopback
        )

    def _of_firewall(self, active: bool | None) -> Iterable[SecurityFinding]:
        wide = sorted(self._wide())
        if active is False and wide:
            yield security_finding(
                "firewall-inactive",
                "host",
                f"no firewall is active, and other machines can reach {', '.join(wide)}",
                ["neither ufw, nftables nor iptables filters what comes in"],
                "sudo helmctl security apply nftables",
            )

    def _of_files(self) -> Iterable[SecurityFinding]:
        audit = audit_files(self._context)
        self._unchecked += audit.missing
        return audit.findings


def audit_now(context: DoctorContext) -> SecurityAuditReply:
    """Return an audit, with the acceptances that are in force. Raises as `SecurityAudit.run`."""
    reply = audit_reply(SecurityAudit(context).run(), context.uid)
    return accepting(reply, AcceptanceStore(context.layout))
