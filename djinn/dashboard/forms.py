"""The forms of the pages."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm

from djinn.core.errors import UserError
from djinn.pipelines.schema import Input, Pipeline
from djinn.runs.states import RunStatus

PREFIX = "input-"


class LoginForm(AuthenticationForm):
    """Django's, without the colon behind labels."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, label_suffix="", **kwargs)


class RunFilterForm(forms.Form):
    """What the list of runs shows; a value that is none of the choices counts as not given."""

    status = forms.ChoiceField(choices=[("", "Any status"), *RunStatus.choices], required=False)
    pipeline = forms.CharField(max_length=100, required=False)
    older = forms.IntegerField(min_value=1, max_value=10**18, required=False)
    newer = forms.IntegerField(min_value=0, max_value=10**18, required=False)

    def wanted(self) -> dict[str, str]:
        """Status and pipeline, as far as given."""
        self.is_valid()
        return {name: self.cleaned_data[name] for name in ("status", "pipeline") if self.cleaned_data.get(name)}

    def number(self, name: str) -> int | None:
        """The cursor of that name."""
        self.is_valid()
        return self.cleaned_data.get(name)


class StartForm(forms.Form):
    """What a pipeline is started with: a field for each of its inputs, and the model."""

    nonce = forms.CharField(widget=forms.HiddenInput, max_length=40, required=False)
    model = forms.CharField(
        max_length=260,
        required=False,
        help_text="provider/model for all agents of this run; empty: what each agent or step names",
    )

    def __init__(self, pipeline: Pipeline, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, label_suffix="")
        self.pipeline = pipeline
        self.fields["nonce"].initial = uuid.uuid4().hex
        for declared in pipeline.inputs:
            self.fields[PREFIX + declared.name] = _field(declared)
        self.order_fields([PREFIX + declared.name for declared in pipeline.inputs])

    @property
    def inputs(self) -> dict[str, Any]:
        """The values that were given. Text that was emptied is given as empty; anything else that is empty is not."""
        given = {}
        for declared in self.pipeline.inputs:
            value = self.cleaned_data[PREFIX + declared.name]
            if isinstance(value, str):
                value = value.replace("\r\n", "\n")
            is_text = declared.type in ("string", "text") and not declared.choices
            if value not in ("", None) or (is_text and declared.default is not None):
                given[declared.name] = value
        return given

    @property
    def idempotency_key(self) -> str:
        """The same for the same values on the same page: a second press of the button starts nothing new."""
        values = json.dumps([self.cleaned_data["model"], self.inputs], sort_keys=True)
        return f"page-{self.cleaned_data['nonce']}-{hashlib.sha256(values.encode()).hexdigest()[:32]}"

    def add_user_error(self, error: UserError) -> None:
        """Show the error: what it says of an input at that field, anything else above the form."""
        known = {name: text for name, text in error.details.items() if PREFIX + name in self.fields}
        for name, text in known.items():
            self.add_error(PREFIX + name, text)
        if not known:
            self.add_error(None, error.message)


def _field(declared: Input) -> forms.Field:
    common: dict[str, Any] = {
        "label": declared.name,
        "required": declared.required,
        "initial": declared.default,
        "help_text": declared.description,
    }
    if declared.choices or declared.type == "boolean":
        values = declared.choices or (True, False)
        choices = [(_text(value), _text(value)) for value in values]
        empty = [] if declared.default is not None else [("", "—")]
        return forms.ChoiceField(**common | {"choices": empty + choices, "initial": _text(declared.default)})
    if declared.type == "integer":
        return forms.IntegerField(**common)
    if declared.type == "number":
        return forms.FloatField(widget=forms.NumberInput(attrs={"step": "any"}), **common)
    if declared.type == "text":
        return forms.CharField(widget=forms.Textarea(attrs={"rows": 8}), strip=False, **common)
    return forms.CharField(strip=False, **common)


def _text(value: Any) -> str:
    """How a choice is written: booleans as in YAML."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
