"""Tracking by W&B, or none. W&B mirrors a run; no table reads anything from it."""

from runner.tracking.settings import check_settings
from runner.tracking.start import track
from runner.tracking.tracker import Tracker

__all__ = ["Tracker", "check_settings", "track"]
