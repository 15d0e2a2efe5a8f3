"""What belongs to a run: its approvals, why it does not go on, and the files that it kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.db.models import QuerySet
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from djinn.api.approvals import ApprovalSummary
from djinn.api.negotiation import AlwaysJson
from djinn.api.permissions import OperatorsChange
from djinn.api.runs import shown_runs
from djinn.executions.models import Artifact
from djinn.runs.artifacts import artifacts_of, open_artifact
from djinn.runs.deciders import approvals_of
from djinn.runs.explanation import explain
from djinn.runs.models import Run


class ObstacleOut(serializers.Serializer[Any]):
    """One thing that has to change."""

    kind = serializers.CharField()
    text = serializers.CharField()
    step = serializers.CharField()
    item = serializers.CharField()
    run = serializers.IntegerField(allow_null=True)


class ExplainedOut(serializers.Serializer[Any]):
    """Something of the run that does not go on, and what would let it."""

    step = serializers.CharField(help_text="empty for the run itself")
    item = serializers.CharField()
    state = serializers.CharField()
    because = serializers.CharField()
    blocked_by = ObstacleOut(many=True)
    chain = serializers.ListField(child=serializers.CharField(), help_text="the reasons, down to what all waits for")
    unblocks = serializers.CharField()
    run = serializers.IntegerField(allow_null=True, help_text="that of a used pipeline; null for the run itself")


class ArtifactOut(serializers.Serializer[Any]):
    """A file that was kept."""

    id = serializers.IntegerField(source="row.pk")
    step = serializers.CharField()
    item = serializers.CharField()
    path = serializers.CharField(source="row.path")
    size = serializers.IntegerField(source="row.size", help_text="bytes")
    digest = serializers.CharField(source="row.digest", help_text="SHA-256")
    created_at = serializers.DateTimeField(source="row.created_at")


class RunPartsViewSet(viewsets.GenericViewSet[Run]):
    """What belongs to runs."""

    permission_classes = [OperatorsChange]
    pagination_class = None
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Run]:
        return shown_runs(self.request.user)

    @extend_schema(responses=ApprovalSummary(many=True))
    @action(detail=True)
    def approvals(self, request: Request, pk: str) -> Response:
        """The run's approvals, newest first."""
        return Response(ApprovalSummary(approvals_of(self.get_object()).defer("shown"), many=True).data)

    @extend_schema(responses=ExplainedOut(many=True))
    @action(detail=True)
    def explain(self, request: Request, pk: str) -> Response:
        """For everything that neither runs nor has ended: the chain of reasons, and what would unblock it."""
        return Response(ExplainedOut([asdict(one) for one in explain(self.get_object())], many=True).data)

    @extend_schema(responses=ArtifactOut(many=True))
    @action(detail=True)
    def artifacts(self, request: Request, pk: str) -> Response:
        """The files that the run's steps kept, by path."""
        return Response(ArtifactOut(artifacts_of(self.get_object()), many=True).data)

    @extend_schema(
        parameters=[OpenApiParameter("artifact", int, "path")],
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY},
    )
    @action(
        detail=True,
        url_path=r"artifacts/(?P<artifact>[0-9]{1,18})",
        url_name="artifact",
        content_negotiation_class=AlwaysJson,
    )
    def artifact(self, request: Request, pk: str, artifact: str) -> FileResponse:
        """The content of a file that was kept, to be saved and never shown: an agent wrote it."""
        kept, file = open_artifact(self.get_object(), int(artifact))
        return _download(kept, file)


def _download(kept: Artifact, file: Any) -> FileResponse:
    answer = FileResponse(
        file, as_attachment=True, filename=kept.path.rpartition("/")[2], content_type="application/octet-stream"
    )
    answer["X-Content-Type-Options"] = "nosniff"
    answer["Content-Security-Policy"] = "default-src 'none'; sandbox"
    answer["ETag"] = f'"{kept.digest}"'
    return answer
