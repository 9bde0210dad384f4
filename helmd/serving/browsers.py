"""Browser sessions and logins, page templates, and what the gateway adds to pages."""

from helmd.health.peers import Peers
from helmd.health.thread_pool import ThreadPool
from helmd.model.config.settings import Settings
from helmd.model.identity.sessions import SessionLimits
from helmd.operations.identity.gateway_page import GatewayPages
from helmd.operations.identity.session_files import SessionFiles
from helmd.operations.identity.user_access import UserAccess
from helmd.serving.resources import Resources
from helmd.serving.suite import WatchedSuite
from helmd.web.auth.logins import Logins
from helmd.web.auth.sessions import BrowserSessions
from helmd.web.pages.assets import Assets
from helmd.web.pages.login import LoginPages
from helmd.web.pages.overview import health_line
from helmd.web.pages.rendering import Renderer

USER_REQUESTS = 4
"""Maximum number of concurrent requests about users to Keycloak."""


class Browsers:
    """What serves browsers rather than programs. It handles the logins of SHARED's callers."""

    def __init__(self, shared: Resources, suite: WatchedSuite) -> None:
        places, current = shared.places, shared.current
        self._shared = shared
        self.sessions = BrowserSessions(SessionFiles(places.sessions), _session_limits(current.settings))
        self.logins = shared.callers.logins = Logins(self.sessions)
        self.gateway_pages = GatewayPages(places, lambda: current.registry, suite.gateway_run, Peers(places.uid).peer)
        self.assets = Assets()
        self.renderer = Renderer(
            self.assets,
            lambda: self.gateway_pages.injected,
            lambda identity: health_line(suite.monitor.statuses(), current.watched(), identity),
        )
        self.login_pages = LoginPages(self.logins, self.renderer, self.url)
        self.user_access = UserAccess(places, lambda: (current.registry, current.settings))
        self.for_users = ThreadPool(USER_REQUESTS).run

    def url(self) -> str:
        """Return the suite's public URL, or an empty string."""
        return self._shared.current.settings.url

    def adopt(self) -> None:
        """Use the current settings and registry from now on."""
        current = self._shared.current
        self._shared.callers.adopt(current.settings, current.registry)
        self.sessions.limits = _session_limits(current.settings)


def _session_limits(settings: Settings) -> SessionLimits:
    return SessionLimits(settings.session_read_only, settings.session_idle, settings.session_longest)
