"""Schedules: pipelines that are started at set times."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from djinn.accounts.models import User
from djinn.api.permissions import OperatorsChange
from djinn.api.runs import RunDetail
from djinn.runs.models import Schedule
from djinn.runs.schedules import (
    Wanted,
    create_schedule,
    delete_schedule,
    next_due,
    patch_schedule,
    schedules_seen_by,
    start_now,
)
from djinn.runs.selectors import run_view


class ScheduleIn(serializers.Serializer[Any]):
    """What a schedule shall be."""

    name = serializers.CharField(max_length=100)
    pipeline = serializers.CharField(max_length=100)
    cron = serializers.CharField(
        max_length=200,
        help_text="minute hour day-of-month month day-of-week; a day must fit both the month's and the week's field",
    )
    timezone = serializers.CharField(max_length=64, default="UTC", help_text="a name of the IANA time zone database")
    inputs = serializers.DictField(child=serializers.JSONField(), default=dict)
    model = serializers.CharField(max_length=260, default="", allow_blank=True)
    overlap = serializers.ChoiceField(
        Schedule.Overlap.choices, default=Schedule.Overlap.SKIP, help_text="what a tick does while a run of it is open"
    )
    is_enabled = serializers.BooleanField(default=True)


class ScheduleOut(serializers.ModelSerializer[Schedule]):
    """A schedule."""

    created_by = serializers.CharField(source="created_by.username", read_only=True)
    next_due = serializers.SerializerMethodField(help_text="null while it is disabled")

    class Meta:
        model = Schedule
        fields = [
            "id", "name", "pipeline", "inputs", "model", "cron", "timezone", "overlap", "is_enabled", "created_by",
            "created_at", "next_due", "last_message",
        ]  # fmt: skip
        read_only_fields = fields

    def get_next_due(self, schedule: Schedule) -> datetime | None:
        return next_due(schedule)


class ScheduleFilter(django_filters.FilterSet):  # type: ignore[misc]  # the package has no types
    """`?pipeline=demo&is_enabled=true`"""

    class Meta:
        model = Schedule
        fields = ["pipeline", "is_enabled"]


class ScheduleViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Schedule]):
    """Pipelines that are started at set times."""

    permission_classes = [OperatorsChange]
    serializer_class = ScheduleOut
    filterset_class = ScheduleFilter
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Schedule]:
        return schedules_seen_by(self.request.user)

    @extend_schema(request=ScheduleIn, responses={201: ScheduleOut})
    def create(self, request: Request) -> Response:
        """Make a schedule. Its runs are started in your name."""
        given = ScheduleIn(data=request.data)
        given.is_valid(raise_exception=True)
        schedule = create_schedule(user=request.user, wanted=Wanted(**given.validated_data))  # type: ignore[arg-type]
        return Response(ScheduleOut(schedule).data, status=201, headers={"Location": request.path + f"{schedule.pk}/"})

    @extend_schema(request=ScheduleIn, responses=ScheduleOut)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is given, and nothing else: two changes at once of different things are both kept.

        Times that have passed start nothing. A change makes you the owner: from then on its runs are started in your
        name. To disable it does not.
        """
        schedule = self.get_object()
        given = ScheduleIn(data=request.data, partial=True)
        given.is_valid(raise_exception=True)
        user: User = request.user  # type: ignore[assignment]
        changed = patch_schedule(schedule=schedule, changes=given.validated_data, user=user)
        return Response(ScheduleOut(changed).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete the schedule; its runs stay."""
        delete_schedule(schedule=self.get_object())
        return Response(status=204)

    @extend_schema(request=None, responses={201: RunDetail})
    @action(detail=True, methods=["post"])
    def start(self, request: Request, pk: str) -> Response:
        """Start a run of it now, in your name; 409 when it skips while a run of it is open."""
        run = start_now(schedule=self.get_object(), user=request.user)  # type: ignore[arg-type]
        return Response(RunDetail(run_view(run)).data, status=201, headers={"Location": f"/api/v1/runs/{run.pk}/"})
