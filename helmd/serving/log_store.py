"""helmd's use of the log store: posted entries and metrics, searches, followers, and maintenance."""

from functools import partial

from helmd.journal.posted import write
from helmd.model.ingest.token_bucket import Rates
from helmd.operations.logs.audit import AuditQuery, JournalPart, audit_entries
from helmd.operations.logs.audit_store import AuditPages
from helmd.operations.logs.disk import LowDisk
from helmd.operations.logs.feed import Feed
from helmd.operations.logs.posted import PostedLogs
from helmd.operations.logs.reader import LogReader
from helmd.operations.logs.retention import StoreMaintenance
from helmd.operations.logs.view_file import restore_views
from helmd.operations.monitoring.custom_metrics import PostedMetrics
from helmd.operations.monitoring.history import MetricHistory
from helmd.serving.resources import Resources
from helmd.store.ingest.requests import PostedStore, drop_old_requests
from helmd.store.logs.listen import Listener


class LogStore:
    """The writers and readers of the log store."""

    def __init__(self, shared: Resources) -> None:
        places, current, store = shared.places, shared.current, shared.store
        self._shared = shared
        low_disk = LowDisk(places.store_cluster, lambda total: current.settings.min_free(total))
        self.rates = Rates(current.settings.ingest_rate, current.settings.ingest_burst)
        self.posted = PostedLogs(
            lambda: PostedStore.open(store, current.retention_of), partial(write, shared.keys), low_disk
        )
        self.measured = PostedMetrics(shared.pool)
        self.metrics = MetricHistory(shared.pool)
        self.feed = Feed(lambda: Listener.open(store, "helmd-feed"))
        self.reader = LogReader(shared.readers, store, lambda: bool(self.feed.trouble))
        self.maintenance = StoreMaintenance(
            shared.owner,
            shared.prepare,
            current.retentions,
            [drop_old_requests, restore_views(places.restored_views)],
            current.retention_of,
        )
        self.trail = AuditPages(self.audit, self.reader)

    def audit(self, wanted: AuditQuery, limit: int) -> JournalPart:
        """Return the part of the audit trail in the journal. Blocks."""
        return audit_entries(self._shared.places, self._shared.current.scheduled, wanted, limit)
