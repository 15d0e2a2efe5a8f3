"""Runs: start, list, look at, follow, cancel."""

from __future__ import annotations

from typing import Any

import django_filters
from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_field,
    inline_serializer,
)
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from djinn.accounts.credentials import credential_of
from djinn.accounts.models import ApiToken
from djinn.api.approvals import ApprovalSummary
from djinn.api.negotiation import AlwaysJson
from djinn.api.permissions import OperatorsChange
from djinn.core.errors import UserError
from djinn.events import log
from djinn.events.serial import event_json
from djinn.events.sse import cursor, event_stream_response
from djinn.runs.deciders import approvals_of
from djinn.runs.models import Run
from djinn.runs.selectors import LEFT, UNLISTED, RunView, StepView, run_view, runs_seen_by
from djinn.runs.services import cancel_run, start_run
from djinn.runs.states import ApprovalStatus, RunStatus, StepStatus

MOST_EVENTS = 1000
LONGEST_KEY = 200
ONCE = (
    "The same key with the same request gives the run that it started, with 201 again; with another request it is 409."
    " Each person has keys of their own."
)
PARENT = "the run that it is a part of, when its pipeline is a step of another one"


class StartRun(serializers.Serializer[Any]):
    """What a run is started with."""

    pipeline = serializers.CharField(max_length=100)
    inputs = serializers.DictField(child=serializers.JSONField(), default=dict)
    model = serializers.CharField(
        max_length=260, default="", allow_blank=True, help_text="provider/model for all agents"
    )
    priority = serializers.IntegerField(
        min_value=-100, max_value=100, default=None, allow_null=True, help_text="instead of the pipeline's own"
    )


class RunSummary(serializers.ModelSerializer[Run]):
    """A run in a list."""

    created_by = serializers.CharField(source="created_by.username", read_only=True, allow_null=True)
    parent = serializers.IntegerField(  # type: ignore[assignment]  # a field of this name, not the base's attribute
        source="parent.run_id", read_only=True, allow_null=True, help_text=PARENT
    )

    class Meta:
        model = Run
        fields = [
            "id", "pipeline", "status", "reason", "message", "inputs", "model", "priority", "group", "host", "parent",
            "continues", "created_by", "created_at", "started_at", "ended_at", "paused_at", "cancel_requested_at",
        ]  # fmt: skip
        read_only_fields = fields


class StepRunOut(serializers.Serializer[StepView]):
    """One try of one step."""

    id = serializers.IntegerField(source="row.pk")
    number = serializers.IntegerField(source="row.number")
    step = serializers.CharField(source="row.step")
    item = serializers.CharField(source="row.item", help_text="index of the item that it is for; empty for none")
    item_value = serializers.JSONField(source="row.item_value", allow_null=True)
    visit = serializers.IntegerField(source="row.visit")
    attempt = serializers.IntegerField(source="row.attempt")
    because = serializers.CharField(source="row.because")
    status = serializers.ChoiceField(StepStatus.choices, source="row.status")
    reason = serializers.CharField(source="row.reason")
    message = serializers.CharField(source="row.message", help_text="one line; what the step wrote stands in its log")
    log_url = serializers.SerializerMethodField(help_text="the page of its log")
    outputs = serializers.JSONField(source="row.outputs")
    summary = serializers.CharField(source="row.summary")
    queued_at = serializers.DateTimeField(source="row.queued_at")
    started_at = serializers.DateTimeField(source="row.started_at", allow_null=True)
    ended_at = serializers.DateTimeField(source="row.ended_at", allow_null=True)
    execution = serializers.IntegerField(source="row.execution_id", allow_null=True)
    reused_from = serializers.IntegerField(
        source="row.reused_from_id",
        allow_null=True,
        help_text="the step run of an earlier run whose result stands here",
    )
    input_tokens = serializers.IntegerField(source="bill.input_tokens")
    output_tokens = serializers.IntegerField(source="bill.output_tokens")
    cost_usd = serializers.DecimalField(14, 6, source="bill.cost_usd", allow_null=True)

    def get_log_url(self, view: StepView) -> str:
        return f"{settings.BASE_URL}/runs/{view.row.run_id}/#step-run-{view.row.pk}"


class RunDetail(serializers.Serializer[RunView]):
    """A run with its step runs, its bill and its diff."""

    id = serializers.IntegerField(source="row.pk")
    pipeline = serializers.CharField(source="row.pipeline")
    digest = serializers.CharField(source="row.digest")
    status = serializers.ChoiceField(RunStatus.choices, source="row.status")
    reason = serializers.CharField(source="row.reason")
    message = serializers.CharField(source="row.message")
    inputs = serializers.JSONField(source="row.inputs")
    model = serializers.CharField(source="row.model")
    priority = serializers.IntegerField(source="row.priority")
    group = serializers.CharField(source="row.group", help_text="its concurrency group; empty for none")
    host = serializers.CharField(source="row.host", help_text="where its files are; empty while nothing has begun")
    parent = serializers.IntegerField(  # type: ignore[assignment]  # a field of this name, not the base's attribute
        source="row.parent.run_id", allow_null=True, help_text=PARENT
    )
    continues = serializers.IntegerField(
        source="row.continues_id", allow_null=True, help_text="the run whose results it goes on from, or repeats"
    )
    created_by = serializers.CharField(source="row.created_by.username", allow_null=True)
    created_at = serializers.DateTimeField(source="row.created_at")
    started_at = serializers.DateTimeField(source="row.started_at", allow_null=True)
    ended_at = serializers.DateTimeField(source="row.ended_at", allow_null=True)
    paused_at = serializers.DateTimeField(source="row.paused_at", allow_null=True)
    cancel_requested_at = serializers.DateTimeField(source="row.cancel_requested_at", allow_null=True)
    approvals = serializers.SerializerMethodField(help_text="what waits for people")
    step_runs = StepRunOut(many=True, source="steps")
    input_tokens = serializers.IntegerField(source="bill.input_tokens")
    output_tokens = serializers.IntegerField(source="bill.output_tokens")
    cost_usd = serializers.DecimalField(14, 6, source="bill.cost_usd", allow_null=True)
    diff = serializers.CharField(help_text="What the run changed so far, as a unified diff, cut at 1 MB.")

    @extend_schema_field(ApprovalSummary(many=True))
    def get_approvals(self, view: RunView) -> Any:
        return ApprovalSummary(approvals_of(view.row).filter(status=ApprovalStatus.OPEN).defer("shown"), many=True).data


class RunFilter(django_filters.FilterSet):  # type: ignore[misc]  # the package has no types
    """`?status=running&pipeline=demo`"""

    class Meta:
        model = Run
        fields = ["status", "pipeline"]


EventPage = inline_serializer(
    "EventPage",
    {
        "events": inline_serializer(
            "Event",
            {
                "seq": serializers.IntegerField(),
                "type": serializers.CharField(),
                "at": serializers.DateTimeField(),
                "data": serializers.DictField(),
            },
            many=True,
        ),
        "last_seq": serializers.IntegerField(help_text="of the stream; there is more while the last event's is lower"),
    },
)


class RunViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Run]):
    """Pipelines in motion."""

    permission_classes = [OperatorsChange]
    serializer_class = RunSummary
    filterset_class = RunFilter
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Run]:
        return shown_runs(self.request.user)

    @extend_schema(
        request=StartRun,
        responses={201: RunDetail},
        parameters=[OpenApiParameter("Idempotency-Key", str, "header", description=ONCE)],
    )
    def create(self, request: Request) -> Response:
        """Start a run."""
        given = StartRun(data=request.data)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        run = start_run(
            pipeline_id=values["pipeline"],
            inputs=values["inputs"],
            model=values["model"],
            priority=values["priority"],
            user=request.user,  # type: ignore[arg-type]
            idempotency_key=idempotency_key(request),
        )
        return Response(RunDetail(run_view(run)).data, status=201, headers={"Location": f"/api/v1/runs/{run.pk}/"})

    @extend_schema(responses=RunDetail)
    def retrieve(self, request: Request, pk: str) -> Response:
        """One run with its step runs."""
        return Response(RunDetail(run_view(self.get_object())).data)

    @extend_schema(request=None, responses={202: RunSummary})
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Cancel the run: nothing more starts, its container is stopped. Again is no error; 409 when it has ended."""
        run = cancel_run(run=self.get_object(), user=request.user)  # type: ignore[arg-type]
        return Response(RunSummary(run).data, status=202)

    @extend_schema(
        parameters=[
            OpenApiParameter("after", int, description="the sequence number behind which to read"),
            OpenApiParameter("limit", int, description=f"1 to {MOST_EVENTS}, for JSON"),
            OpenApiParameter("Last-Event-ID", str, "header", description="the same, for server-sent events"),
        ],
        responses={
            (200, "application/json"): EventPage,
            (200, "text/event-stream"): OpenApiResponse(OpenApiTypes.STR, "each event as it happens"),
        },
    )
    @action(detail=True, content_negotiation_class=AlwaysJson)
    def events(self, request: Request, pk: str) -> HttpResponseBase:
        """The run's log behind a cursor: a JSON page, or server-sent events with `Accept: text/event-stream`."""
        return _events(request, self.get_object())


def shown_runs(user: Any) -> QuerySet[Run]:
    """The runs that the person may see, with what is shown of them and no more."""
    rows = runs_seen_by(user).select_related("created_by", "parent")
    return rows.defer(*UNLISTED, *(f"parent__{name}" for name in LEFT))


def _events(request: Request, run: Run) -> HttpResponseBase:
    if "text/event-stream" in request.headers.get("Accept", ""):
        token = request.auth if isinstance(request.auth, ApiToken) else None
        return event_stream_response(request._request, run.stream, credential_of(request._request, token))
    after = cursor(request._request, run.stream)
    events = [event_json(event) for event in log.read_after(run.stream, after, limit=_limit(request))]
    return Response({"events": events, "last_seq": log.last_seq(run.stream)})


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(log.PAGE))
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MOST_EVENTS):
        raise UserError(f"{text[:40]!r} is no limit.", details={"limit": f"1 to {MOST_EVENTS}"})
    return int(text)


def idempotency_key(request: Request) -> str:
    """The request's key, empty for none; raises `UserError` for one that cannot be used."""
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > LONGEST_KEY or not key.isprintable():
        wrong = f"at most {LONGEST_KEY} printable characters"
        raise UserError("This idempotency key cannot be used.", details={"Idempotency-Key": wrong})
    return key


def not_here(request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
    """Any other path below /api/ in the envelope of errors."""
    return HttpResponse(
        '{"error": {"code": "not_found", "message": "There is no such endpoint.", "details": {}}}',
        content_type="application/json",
        status=404,
    )
