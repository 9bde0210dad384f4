"""The check of ``helmctl doctor`` for limits of services that this host does not enforce."""

from helmd.model.suite.limits import unenforced
from helmd.model.units.diagnostics import Finding, ok, warn
from helmd.operations.configuration.host_facts import controllers_of
from helmd.operations.diagnostics.context import DoctorContext

_DELEGATE = (
    r"printf '[Service]\nDelegate=cpu memory pids\n' | sudo install -D -m 644 /dev/stdin"
    " /etc/systemd/system/user@.service.d/50-delegate.conf; sudo systemctl daemon-reload; then restart the machine."
    " In a container, the host has to delegate the controller to it"
)


def limits(context: DoctorContext) -> list[Finding]:
    missing = unenforced(context.suite, controllers_of(context.manager))
    return [warn(each.sentence, _DELEGATE) for each in missing] or [ok("of services are enforced")]
