"""Pipelines: what can be started, and what is wrong with the files that cannot."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from djinn.accounts.models import Role
from djinn.core.errors import Forbidden
from djinn.runs.catalogue import load_catalogue


class InputOut(serializers.Serializer[Any]):
    """An input that a pipeline takes."""

    name = serializers.CharField()
    type = serializers.CharField()
    required = serializers.BooleanField()  # type: ignore[assignment]  # a field of this name, not the base's flag
    default = serializers.JSONField(allow_null=True)
    description = serializers.CharField()
    choices = serializers.ListField(child=serializers.JSONField())


class PipelineOut(serializers.Serializer[Any]):
    """A pipeline that can be started."""

    id = serializers.CharField(source="pipeline.id")
    name = serializers.CharField(source="pipeline.name")
    description = serializers.CharField(source="pipeline.description")
    digest = serializers.CharField()
    inputs = InputOut(many=True, source="pipeline.inputs")
    steps = serializers.SerializerMethodField()

    def get_steps(self, loaded: Any) -> list[str]:
        return [step.id for step in loaded.pipeline.steps]


class CatalogueOut(serializers.Serializer[Any]):
    """All files of the folder."""

    pipelines = PipelineOut(many=True)
    problems = serializers.DictField(child=serializers.ListField(child=serializers.CharField()))


class PipelineList(APIView):
    """Pipelines of the installation."""

    @extend_schema(responses=CatalogueOut)
    def get(self, request: Request) -> Response:
        """Every pipeline that can be started, and the problems of the files that cannot."""
        if not request.user.is_authenticated or not request.user.has_role(Role.VIEWER):
            raise Forbidden("This needs the role of viewer.")
        catalogue = load_catalogue()
        problems = {file: [str(problem) for problem in found] for file, found in catalogue.problems.items()}
        return Response(CatalogueOut({"pipelines": list(catalogue.pipelines.values()), "problems": problems}).data)
