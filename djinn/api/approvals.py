"""Approvals: what waits for people, what they are shown, and their decisions."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from djinn.runs.approvals import LONGEST_COMMENT, decide
from djinn.runs.deciders import approvals_seen_by, may_decide
from djinn.runs.models import Approval, Decision


class DecisionIn(serializers.Serializer[Any]):
    """What a person decides."""

    verdict = serializers.ChoiceField(Decision.Verdict.choices)
    digest = serializers.CharField(max_length=64, help_text="of the question that the person saw")
    comment = serializers.CharField(max_length=LONGEST_COMMENT, default="", allow_blank=True, trim_whitespace=False)


class DecisionOut(serializers.ModelSerializer[Decision]):
    """What one person decided."""

    user = serializers.CharField(source="user.username", read_only=True)

    class Meta:
        model = Decision
        fields = ["user", "verdict", "comment", "at"]
        read_only_fields = fields


class ApprovalSummary(serializers.ModelSerializer[Approval]):
    """An approval in a list: without what it shows."""

    run = serializers.IntegerField(source="step_run.run_id", read_only=True)
    step_run = serializers.IntegerField(source="step_run_id", read_only=True)
    step = serializers.CharField(source="step_run.step", read_only=True)
    item = serializers.CharField(source="step_run.item", read_only=True)
    by = serializers.ListField(child=serializers.CharField(), read_only=True, help_text="roles and names")
    decisions = DecisionOut(many=True, read_only=True)

    class Meta:
        model = Approval
        fields = [
            "id", "run", "step_run", "step", "item", "status", "question", "digest", "by", "count", "asked_at",
            "expires_at", "ended_at", "decisions",
        ]  # fmt: skip
        read_only_fields = fields


class ShownOut(serializers.Serializer[Any]):
    """What people decide on."""

    outputs = serializers.DictField(child=serializers.JSONField(allow_null=True))
    diff = serializers.CharField(required=False, help_text="as a unified diff, when the step shows it")


class ApprovalOut(ApprovalSummary):
    """An approval with what it shows."""

    shown = ShownOut(read_only=True)
    may_decide = serializers.SerializerMethodField(help_text="whether the person who asks may")

    class Meta(ApprovalSummary.Meta):
        fields = [*ApprovalSummary.Meta.fields, "shown", "may_decide"]
        read_only_fields = fields

    def get_may_decide(self, approval: Approval) -> bool:
        return may_decide(self.context["request"].user, approval)


class ApprovalFilter(django_filters.FilterSet):  # type: ignore[misc]  # the package has no types
    """`?status=open&run=7`"""

    run = django_filters.NumberFilter(field_name="step_run__run_id", max_value=2**63 - 1)

    class Meta:
        model = Approval
        fields = ["status"]


class ApprovalViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Approval]):
    """Questions to people."""

    permission_classes = [IsAuthenticated]
    serializer_class = ApprovalSummary
    filterset_class = ApprovalFilter
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Approval]:
        rows = approvals_seen_by(self.request.user)
        return rows.defer("shown") if self.action == "list" else rows

    @extend_schema(responses=ApprovalOut)
    def retrieve(self, request: Request, pk: str) -> Response:
        """One approval with what it shows."""
        return Response(ApprovalOut(self.get_object(), context=self.get_serializer_context()).data)

    @extend_schema(request=DecisionIn, responses=ApprovalOut)
    @action(detail=True, methods=["post"])
    def decide(self, request: Request, pk: str) -> Response:
        """Approve or reject. 409 when it is no longer open, was decided by this person, or has changed since."""
        given = DecisionIn(data=request.data)
        given.is_valid(raise_exception=True)
        decided = decide(approval_id=int(pk), user=request.user, **given.validated_data)  # type: ignore[arg-type]
        return Response(ApprovalOut(decided, context=self.get_serializer_context()).data)
