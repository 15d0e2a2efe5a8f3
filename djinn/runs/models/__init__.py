"""The rows of pipelines in motion."""

from __future__ import annotations

from djinn.runs.models.approvals import Approval, Decision
from djinn.runs.models.run import Run, StepRun
from djinn.runs.models.schedules import Schedule
from djinn.runs.models.steering import Intent, Note

__all__ = ["Approval", "Decision", "Intent", "Note", "Run", "Schedule", "StepRun"]
