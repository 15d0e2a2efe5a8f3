"""The forms of what people do with runs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import QueryDict

from djinn.core.errors import UserError
from djinn.dashboard.forms import InputsForm, RunFilterForm, is_plain, page_key
from djinn.pipelines.history import named
from djinn.pipelines.schema import Input, Pipeline
from djinn.runs.models import Decision, Run
from djinn.runs.notes import LONGEST_NOTE
from djinn.runs.states import StepStatus

MOST_PLACES = 500
MOST_NUMBER = 2**63 - 1


class DecisionForm(forms.Form):
    """What a person decides on the question that they saw."""

    verdict = forms.ChoiceField(choices=Decision.Verdict.choices)
    digest = forms.CharField(max_length=64)
    comment = forms.CharField(required=False, strip=False)

    def clean_comment(self) -> str:
        return str(self.cleaned_data["comment"]).replace("\r\n", "\n").strip()

    def check(self) -> None:
        """Raise `UserError` when something is missing or of a wrong kind."""
        if not self.is_valid():
            raise UserError("The form was not complete.", details={"form": self.errors.as_text()})


class _RunForm(forms.Form):
    """A form about a run."""

    def add_user_error(self, error: UserError) -> None:
        """Show the error above the form."""
        self.add_error(None, " ".join([error.message, *error.details.values()]) if error.details else error.message)


class NoteForm(_RunForm):
    """Text for the next prompt of a step that has not started, or of an agent."""

    whom = forms.ChoiceField(label="Send to")
    text = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 6}),
        max_length=LONGEST_NOTE,
        strip=False,
        help_text="Added to the next prompt of that step or agent, once.",
    )

    def __init__(self, run: Run, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, label_suffix="")
        steps = run.definition.get("steps", [])
        prompted = [str(step["id"]) for step in steps if step.get("kind") == "agent"]
        self.fields["whom"].choices = [  # type: ignore[attr-defined]
            ("Steps", [(f"step:{step}", step) for step in prompted]),
            ("Agents", [(f"agent:{agent}", agent) for agent in run.agents]),
        ]

    @property
    def note(self) -> dict[str, str]:
        """The text, and whom it is for, as `inject` takes them."""
        kind, _, name = self.cleaned_data["whom"].partition(":")
        return {"text": self.cleaned_data["text"].replace("\r\n", "\n"), kind: name}


class RerunForm(_RunForm):
    """From which step a run is run again."""

    nonce = forms.CharField(widget=forms.HiddenInput, max_length=40, required=False)
    start_at = forms.ChoiceField(label="Start from", help_text="Uses its last attempt.")

    def __init__(self, run: Run, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, label_suffix="")
        self.fields["nonce"].initial = uuid.uuid4().hex
        self.fields["start_at"].choices = _places(run)  # type: ignore[attr-defined]

    @property
    def place(self) -> tuple[str, str]:
        """Step and item."""
        step, _, item = self.cleaned_data["start_at"].rpartition(":")
        return step, item

    @property
    def idempotency_key(self) -> str:
        return page_key(self.cleaned_data["nonce"], self.place)


class RestartForm(InputsForm):
    """The inputs and the model of a run, to be changed."""

    model = forms.CharField(
        max_length=260,
        required=False,
        help_text="provider/model for all agents of the new run; empty: what each agent or step names",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        data: Mapping[str, Any] | None = None,
        *,
        present: Mapping[str, Any] | None = None,
        model: str = "",
    ) -> None:
        super().__init__(pipeline, data, present=present)
        self.fields["model"].initial = model
        self.order_fields([name for name in self.fields if name != "model"])

    @property
    def chosen_model(self) -> str | None:
        """The model that was written, which may be none; None when the page had no such field."""
        return str(self.cleaned_data["model"]) if "model" in self.data else None

    @property
    def idempotency_key(self) -> str:
        return page_key(self.cleaned_data["nonce"], [self.cleaned_data["model"], self.inputs])

    @property
    def changed(self) -> dict[str, Any]:
        """Every input as it is now written; what was emptied is null, or empty text where the old value was text."""
        return {declared.name: self._changed(declared) for declared in self.pipeline.inputs}

    def _changed(self, declared: Input) -> Any:
        value = self.value(declared)
        was_text = is_plain(declared) and isinstance(self.present.get(declared.name), str)
        return value if value != "" or was_text else None


class BulkForm(forms.Form):
    """The runs that something is done to, and the query of the list that they were chosen on."""

    verb = forms.ChoiceField(choices=[("cancel", "Cancel"), ("retry", "Retry")])
    run = forms.TypedMultipleChoiceField(coerce=int)
    back_to = forms.CharField(required=False)

    def __init__(self, data: QueryDict) -> None:
        super().__init__(data)
        numbers = [text for text in data.getlist("run") if text.isascii() and text.isdigit() and len(text) < 19]
        self.fields["run"].choices = [(text, text) for text in numbers]  # type: ignore[attr-defined]

    @property
    def back(self) -> str:
        """The query string of the list, made anew from what it may hold."""
        wanted = RunFilterForm(QueryDict(str(self.data.get("back_to", "")))).wanted()
        query = QueryDict(mutable=True)
        query.update(wanted)
        return f"?{query.urlencode()}" if wanted else ""


def _places(run: Run) -> list[tuple[str, str]]:
    """The steps that ran, in the order of their first time, each followed by its items."""
    rows = run.step_runs.exclude(status=StepStatus.SKIPPED).order_by("number").values_list("step", "item")
    items: dict[str, list[str]] = {}
    for step, item in rows:
        found = items.setdefault(step, [])
        if item and item not in found:
            found.append(item)
    places = []
    for step, found in items.items():
        places.append((f"{step}:", f"{step}, all items" if found else step))
        places += [(f"{step}:{item}", named(step, item)) for item in found]
    return places[:MOST_PLACES]
