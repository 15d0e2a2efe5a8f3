"""What people want of runs: pause, resume, add context, retry, re-run, restart; cancel and retry many at once."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from djinn.api.permissions import OperatorsChange
from djinn.api.runs import ONCE, RunDetail, RunSummary, idempotency_key, shown_runs
from djinn.runs.bulk import MOST_AT_ONCE, Outcome, cancel_runs, retry_runs
from djinn.runs.continuing import rerun_from, restart_run, retry_run
from djinn.runs.models import Intent, Note, Run
from djinn.runs.selectors import run_view
from djinn.runs.steering import inject, pause_run, resume_run

KEY = OpenApiParameter("Idempotency-Key", str, "header", description=ONCE)
MOST_NUMBER = 2**63 - 1


class NoteIn(serializers.Serializer[Any]):
    """Text for the next prompt of a step, or of an agent: one of the two is named."""

    text = serializers.CharField(trim_whitespace=False)
    step = serializers.CharField(max_length=100, default="", allow_blank=True)
    agent = serializers.CharField(max_length=100, default="", allow_blank=True)


class NoteOut(serializers.ModelSerializer[Note]):
    """Text that goes, or went, into a prompt."""

    created_by = serializers.CharField(source="created_by.username", read_only=True, allow_null=True)

    class Meta:
        model = Note
        fields = ["id", "step", "agent", "text", "created_by", "created_at", "read_by"]
        read_only_fields = fields


class Rerun(serializers.Serializer[Any]):
    """Where to begin: at the step's last visit, unless item or visit say otherwise."""

    step = serializers.CharField(max_length=100)
    item = serializers.CharField(max_length=100, default="", allow_blank=True)
    visit = serializers.IntegerField(min_value=1, max_value=2**31 - 1, default=None, allow_null=True)


class Restart(serializers.Serializer[Any]):
    """The inputs that change; the others stay. Without a model it is that of the old run."""

    inputs = serializers.DictField(child=serializers.JSONField(), default=dict)
    model = serializers.CharField(max_length=260, allow_blank=True, required=False)


class Many(serializers.Serializer[Any]):
    """The runs to do it to."""

    ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=MOST_NUMBER), min_length=1, max_length=MOST_AT_ONCE
    )


class OutcomeOut(serializers.Serializer[Outcome]):
    """What became of one run."""

    id = serializers.IntegerField()
    run = serializers.IntegerField(allow_null=True, help_text="the run that was changed or made; null when refused")
    code = serializers.CharField()
    error = serializers.CharField()


class Outcomes(serializers.Serializer[Any]):
    """What became of each."""

    results = OutcomeOut(many=True)


class IntentOut(serializers.ModelSerializer[Intent]):
    """What somebody wanted of a run."""

    by = serializers.CharField(source="by.username", read_only=True, allow_null=True)
    details = serializers.DictField(child=serializers.JSONField(allow_null=True), read_only=True)

    class Meta:
        model = Intent
        fields = ["id", "verb", "by", "at", "details"]
        read_only_fields = fields


class SteeringViewSet(viewsets.GenericViewSet[Run]):
    """What people want of runs."""

    permission_classes = [OperatorsChange]
    serializer_class = RunSummary
    pagination_class = None
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Run]:
        return shown_runs(self.request.user)

    @extend_schema(request=None, responses={202: RunSummary})
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Start nothing new; what runs goes on. Again is no error; 409 when it has ended."""
        return _accepted(pause_run(run=self.get_object(), user=request.user))  # type: ignore[arg-type]

    @extend_schema(request=None, responses={202: RunSummary})
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Let things start again. Again is no error; 409 when it has ended."""
        return _accepted(resume_run(run=self.get_object(), user=request.user))  # type: ignore[arg-type]

    @extend_schema(request=NoteIn, responses={201: NoteOut})
    @action(detail=True, methods=["post"])
    def notes(self, request: Request, pk: str) -> Response:
        """Add text to the next prompt of a step or an agent; 409 when the step has started already."""
        note = inject(run=self.get_object(), user=request.user, **_values(NoteIn, request))  # type: ignore[arg-type]
        return Response(NoteOut(note).data, status=201)

    @extend_schema(request=None, responses={201: RunDetail}, parameters=[KEY])
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """A new run that does what failed, or was cancelled, again; what succeeded is taken over."""
        run = self.get_object()
        return _created(retry_run(run=run, user=request.user, idempotency_key=idempotency_key(request)))  # type: ignore[arg-type]

    @extend_schema(request=Rerun, responses={201: RunDetail}, parameters=[KEY])
    @action(detail=True, methods=["post"])
    def rerun(self, request: Request, pk: str) -> Response:
        """A new run that begins at a step that ran; what came before is taken over. An open run is cancelled by it."""
        run, values, key = self.get_object(), _values(Rerun, request), idempotency_key(request)
        return _created(rerun_from(run=run, user=request.user, idempotency_key=key, **values))  # type: ignore[arg-type]

    @extend_schema(request=Restart, responses={201: RunDetail}, parameters=[KEY])
    @action(detail=True, methods=["post"])
    def restart(self, request: Request, pk: str) -> Response:
        """A new run from the beginning, of the pipeline as it is now, with changed inputs."""
        run, values, key = self.get_object(), _values(Restart, request), idempotency_key(request)
        return _created(restart_run(run=run, user=request.user, idempotency_key=key, **values))  # type: ignore[arg-type]

    @extend_schema(request=Many, responses=Outcomes, operation_id="runs_cancel_many")
    @action(detail=False, methods=["post"], url_path="cancel")
    def cancel_many(self, request: Request) -> Response:
        """Cancel many runs: per run whether that was stored, or why not."""
        return _outcomes(cancel_runs(user=request.user, **_values(Many, request)))  # type: ignore[arg-type]

    @extend_schema(request=Many, responses=Outcomes, operation_id="runs_retry_many")
    @action(detail=False, methods=["post"], url_path="retry")
    def retry_many(self, request: Request) -> Response:
        """Retry many runs: per run the new one, or why there is none."""
        return _outcomes(retry_runs(user=request.user, **_values(Many, request)))  # type: ignore[arg-type]

    @extend_schema(responses=IntentOut(many=True))
    @action(detail=True)
    def intents(self, request: Request, pk: str) -> Response:
        """What people wanted of the run, oldest first."""
        return Response(IntentOut(self.get_object().intents.select_related("by"), many=True).data)


def _values(serializer: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    given = serializer(data=request.data)
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)


def _accepted(run: Run) -> Response:
    return Response(RunSummary(run).data, status=202)


def _created(run: Run) -> Response:
    return Response(RunDetail(run_view(run)).data, status=201, headers={"Location": f"/api/v1/runs/{run.pk}/"})


def _outcomes(found: list[Outcome]) -> Response:
    return Response(Outcomes({"results": found}).data)
