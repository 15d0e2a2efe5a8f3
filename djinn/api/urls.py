from __future__ import annotations

from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import SimpleRouter

from djinn.api.approvals import ApprovalViewSet
from djinn.api.parts import RunPartsViewSet
from djinn.api.pipelines import PipelineList
from djinn.api.runs import RunViewSet, not_here
from djinn.api.schedules import ScheduleViewSet
from djinn.api.steering import SteeringViewSet

router = SimpleRouter()
router.register("runs", RunViewSet, basename="run")
router.register("runs", SteeringViewSet, basename="steering")
router.register("runs", RunPartsViewSet, basename="part")
router.register("approvals", ApprovalViewSet, basename="approval")
router.register("schedules", ScheduleViewSet, basename="schedule")

urlpatterns = [
    path("", include(router.urls)),
    path("pipelines/", PipelineList.as_view(), name="pipeline-list"),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"", not_here),
]
