"""MLflow as a view of ledgers and results: what was lost there can be logged again. Only this imports it."""

from flows.tracking.campaigns import Tracker
from flows.tracking.comparisons import log_comparison
from flows.tracking.sentinels import log_sentinel
from flows.tracking.store import charts_link, open_store, server_command, tracking_uri

__all__ = [
    "Tracker",
    "charts_link",
    "log_comparison",
    "log_sentinel",
    "open_store",
    "server_command",
    "tracking_uri",
]
