"""The health check of the suite's own PostgreSQL: a login, which every service needs."""

from helmd.model.layout import Layout
from helmd.model.suite.service import Service
from helmd.model.units.health import HealthVerdict
from helmd.postgres.cluster import account_name, suite_cluster
from helmd.postgres.sessions import login_verdict


def check_suite_cluster(service: Service, layout: Layout) -> HealthVerdict:
    """Bounded by the timeout of SERVICE, which is the cluster. Blocks."""
    assert service.port is not None
    place, socket, passfile = layout.suite_cluster, layout.suite_socket, layout.suite_passfile
    cluster = suite_cluster(place, socket, service.port, account_name(), passfile)
    return login_verdict(cluster, service.health.timeout)
