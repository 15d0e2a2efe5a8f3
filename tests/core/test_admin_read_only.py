"""What the engine writes cannot be written in Django's admin, not even by a superuser."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.db import transaction
from django.test import Client
from django.urls import reverse

from djinn.accounts.models import User
from djinn.core.admin import ReadOnlyAdmin
from djinn.core.models import WorkerBeat
from djinn.events.log import NewEvent, append, open_stream
from djinn.events.models import Event, Stream
from djinn.executions.models import Execution
from djinn.providers.models import ModelCall
from djinn.runs.models import Run, StepRun

WRITTEN_BY_THE_ENGINE = (Stream, Event, Execution, ModelCall, Run, StepRun, WorkerBeat)


@pytest.mark.parametrize("model", WRITTEN_BY_THE_ENGINE)
def test_the_page_of_what_the_engine_writes_is_read_only(model: type) -> None:
    assert isinstance(admin.site.get_model_admin(model), ReadOnlyAdmin)


@pytest.mark.django_db
@pytest.mark.parametrize("verb", ["add", "change", "delete"])
def test_an_event_cannot_be_added_changed_or_deleted(client: Client, django_user_model: type[User], verb: str) -> None:
    open_stream("run-1")
    with transaction.atomic():
        append("run-1", [NewEvent("notice", {"text": "as it was"})])
    event = Event.objects.get()
    client.force_login(django_user_model.objects.create_superuser("root"))
    arguments = [] if verb == "add" else [event.pk]
    answer = client.post(
        reverse(f"admin:events_event_{verb}", args=arguments), {"type": "other", "seq": 9, "data": "{}", "post": "yes"}
    )
    assert answer.status_code == 403
    assert list(Event.objects.values_list("seq", "type")) == [(1, "notice")]
