from __future__ import annotations

from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import SimpleRouter

from djinn.api.pipelines import PipelineList
from djinn.api.runs import RunViewSet, not_here

router = SimpleRouter()
router.register("runs", RunViewSet, basename="run")

urlpatterns = [
    path("", include(router.urls)),
    path("pipelines/", PipelineList.as_view(), name="pipeline-list"),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"", not_here),
]
