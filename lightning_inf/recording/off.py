"""Why a run can't be recorded."""

from __future__ import annotations


class NotRecordable(Exception):
    """Raised inside the room to switch recording off; its message goes into the report. Never reaches the user."""
