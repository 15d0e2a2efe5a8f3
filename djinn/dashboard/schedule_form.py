"""The form of a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from djinn.dashboard.forms import PREFIX, InputsForm
from djinn.pipelines.schema import Pipeline
from djinn.runs.models import Schedule
from djinn.runs.schedules import LONGEST_NAME, Wanted

_OVERLAPS = [
    (Schedule.Overlap.SKIP, "Start nothing"),
    (Schedule.Overlap.QUEUE, "Start one all the same"),
    (Schedule.Overlap.CANCEL, "Cancel it, then start one"),
]


class ScheduleForm(InputsForm):
    """When a pipeline is started, and with what."""

    name = forms.CharField(max_length=LONGEST_NAME)
    cron = forms.CharField(
        max_length=200,
        label="Times",
        help_text="minute, hour, day of the month, month, day of the week: 0 6 * * 1-5 is at six on workdays",
    )
    timezone = forms.CharField(
        max_length=64, initial="UTC", label="Time zone", help_text="such as Europe/Berlin or UTC"
    )
    overlap = forms.ChoiceField(
        choices=_OVERLAPS, initial=Schedule.Overlap.SKIP, label="While a run of it has not ended"
    )
    is_enabled = forms.BooleanField(required=False, initial=True, label="Enabled")
    model = forms.CharField(
        max_length=260,
        required=False,
        help_text="provider/model for all agents of its runs; empty: what each agent or step names",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        data: Mapping[str, Any] | None = None,
        *,
        present: Mapping[str, Any] | None = None,
        initial: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(pipeline, data, present=present)
        self.initial = dict(initial or {})
        inputs = [PREFIX + declared.name for declared in pipeline.inputs]
        self.order_fields(["name", "cron", "timezone", "overlap", "is_enabled", *inputs, "model"])

    @property
    def schedule(self) -> Wanted:
        """What the schedule shall be."""
        values = {name: self.cleaned_data[name] for name in ("name", "cron", "timezone", "overlap", "is_enabled")}
        return Wanted(pipeline=self.pipeline.id, inputs=self.inputs, model=self.cleaned_data["model"], **values)
