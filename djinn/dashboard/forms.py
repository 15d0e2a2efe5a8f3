"""The forms of the pages."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest

from djinn.accounts.brakes import TooManyAttempts, attempt_succeeded, begin_attempt, login_of, network_of
from djinn.core.errors import UserError
from djinn.pipelines.schema import Input, Pipeline
from djinn.runs.states import RunStatus

PREFIX = "input-"


class LoginForm(AuthenticationForm):
    """Django's, without the colon behind labels; whoever guesses is slowed down."""

    retry_after_seconds = 0
    """After how long it can be tried again, when it was tried too often."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, label_suffix="", **kwargs)

    def clean(self) -> dict[str, Any]:
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if name is None or not password:
            return super().clean()
        account, network = login_of(name, network_of(self.request or HttpRequest()))
        try:
            begin_attempt([account, network])
        except TooManyAttempts as exc:
            self.retry_after_seconds = exc.retry_after_seconds
            raise forms.ValidationError(exc.message, code=exc.code) from exc
        cleaned = super().clean()
        attempt_succeeded(account, network)
        return cleaned


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


class ItemsForm(forms.Form):
    """Which tries of which step are listed; a page that is none is the first."""

    step = forms.CharField(max_length=100, required=False)
    page = forms.IntegerField(min_value=1, max_value=10**6, required=False)

    def wanted(self) -> tuple[str, int]:
        """The step, and the number of the page."""
        self.is_valid()
        return self.cleaned_data.get("step", ""), self.cleaned_data.get("page") or 1


class InputsForm(forms.Form):
    """A field for each input of a pipeline; `present` are values that it begins with instead of the defaults."""

    nonce = forms.CharField(widget=forms.HiddenInput, max_length=40, required=False)

    def __init__(
        self, pipeline: Pipeline, data: Mapping[str, Any] | None = None, *, present: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(data, label_suffix="")
        self.pipeline, self.present = pipeline, present or {}
        self.fields["nonce"].initial = uuid.uuid4().hex
        for declared in pipeline.inputs:
            self.fields[PREFIX + declared.name] = _field(declared, self.present.get(declared.name, declared.default))

    @property
    def inputs(self) -> dict[str, Any]:
        """The values that were given. Text that was emptied is given as empty; anything else that is empty is not."""
        given = {}
        for declared in self.pipeline.inputs:
            value = self.value(declared)
            if value not in ("", None) or (is_plain(declared) and declared.default is not None):
                given[declared.name] = value
        return given

    def value(self, declared: Input) -> Any:
        """What was written into the input's field."""
        value = self.cleaned_data[PREFIX + declared.name]
        return value.replace("\r\n", "\n") if isinstance(value, str) else value

    @property
    def idempotency_key(self) -> str:
        """The same for the same values on the same page: a second press of the button starts nothing new."""
        return page_key(self.cleaned_data["nonce"], self.inputs)

    def add_user_error(self, error: UserError) -> None:
        """Show the error: what it says of an input or a field at that field, anything else above the form."""
        known = {self._field_of(name): text for name, text in error.details.items()}
        known = {name: text for name, text in known.items() if name in self.fields}
        for name, text in known.items():
            self.add_error(name, text)
        if not known:
            self.add_error(None, error.message)

    def _field_of(self, name: str) -> str:
        """The field that an error's detail is about."""
        return name if name in self.fields else PREFIX + name.removeprefix("inputs.")


class StartForm(InputsForm):
    """What a pipeline is started with: its inputs, and the model."""

    model = forms.CharField(
        max_length=260,
        required=False,
        help_text="provider/model for all agents of this run; empty: what each agent or step names",
    )

    def __init__(self, pipeline: Pipeline, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(pipeline, data)
        self.order_fields([PREFIX + declared.name for declared in pipeline.inputs])

    @property
    def idempotency_key(self) -> str:
        return page_key(self.cleaned_data["nonce"], [self.cleaned_data["model"], self.inputs])


def page_key(nonce: str, values: Any) -> str:
    """An idempotency key for these values, sent from the page with that nonce."""
    text = json.dumps(values, sort_keys=True)
    return f"page-{nonce}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def is_plain(declared: Input) -> bool:
    """Whether any text will do, an empty one too."""
    return declared.type in ("string", "text") and not declared.choices


def _field(declared: Input, initial: Any) -> forms.Field:
    common: dict[str, Any] = {
        "label": declared.name,
        "required": declared.required,
        "initial": initial,
        "help_text": declared.description,
    }
    if declared.choices or declared.type == "boolean":
        values = declared.choices or (True, False)
        texts = [_text(value, declared) for value in values]
        choices = [(text, text) for text in texts]
        empty = [] if declared.default is not None else [("", "—")]
        return forms.ChoiceField(**common | {"choices": empty + choices, "initial": _text(initial, declared)})
    if declared.type == "integer":
        return forms.IntegerField(**common)
    if declared.type == "number":
        return forms.FloatField(widget=forms.NumberInput(attrs={"step": "any"}), **common)
    if declared.type in ("list", "json"):
        return _data_field(declared, common)
    if declared.type == "text":
        return forms.CharField(widget=forms.Textarea(attrs={"rows": 8}), strip=False, **common)
    return forms.CharField(strip=False, **common)


def _data_field(declared: Input, common: dict[str, Any]) -> forms.Field:
    """Data is written as JSON, and read again as JSON."""
    what = 'a list as JSON, such as ["one", "two"]' if declared.type == "list" else "JSON"
    told = {"help_text": " · ".join(filter(None, (declared.description, what)))}
    initial = {"initial": _text(common["initial"], declared)}
    return forms.CharField(widget=forms.Textarea(attrs={"rows": 3}), **common | told | initial)


def _text(value: Any, declared: Input) -> str:
    """How a value is written so that it is read again as itself: text as it is, anything else as JSON."""
    if value is None:
        return ""
    is_text = declared.type in ("string", "text")
    return str(value) if is_text else json.dumps(value, ensure_ascii=False)
