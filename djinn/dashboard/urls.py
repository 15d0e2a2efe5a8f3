"""The pages."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path, register_converter

from djinn.dashboard import deciding, scheduling, starting, steering, views
from djinn.dashboard.login import Login


class RowIdConverter:
    """The primary key of a row: what PostgreSQL's bigint can hold, so that no address is an error of the database."""

    regex = "[0-9]{1,18}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


register_converter(RowIdConverter, "row")

app_name = "dashboard"
urlpatterns = [
    path("login/", Login.as_view(), name="login"),
    path("logout/", LogoutView.as_view(next_page="dashboard:login"), name="logout"),
    path("", views.runs, name="runs"),
    path("runs/<row:pk>/", views.run, name="run"),
    path("runs/bulk/", steering.bulk, name="bulk"),
    path("runs/<row:pk>/cancel/", steering.cancel, name="cancel"),
    path("runs/<row:pk>/pause/", steering.pause, name="pause"),
    path("runs/<row:pk>/resume/", steering.resume, name="resume"),
    path("runs/<row:pk>/retry/", steering.retry, name="retry"),
    path("runs/<row:pk>/rerun/", steering.rerun, name="rerun"),
    path("runs/<row:pk>/restart/", steering.restart, name="restart"),
    path("runs/<row:pk>/note/", steering.note, name="note"),
    path("runs/<row:pk>/actions/", steering.actions, name="actions"),
    path("runs/<row:pk>/approvals/", deciding.run_approvals, name="run-approvals"),
    path("runs/<row:pk>/items/", views.items, name="items"),
    path("runs/<row:pk>/artifacts/<row:artifact>/", views.artifact, name="artifact"),
    path("approvals/", deciding.approvals, name="approvals"),
    path("approvals/<row:pk>/", deciding.approval, name="approval"),
    path("approvals/<row:pk>/decide/", deciding.decide, name="decide"),
    path("schedules/", scheduling.schedules, name="schedules"),
    path("schedules/new/", scheduling.choose, name="schedule-choose"),
    path("schedules/new/<str:pipeline>/", scheduling.create, name="schedule-new"),
    path("schedules/<row:pk>/", scheduling.change, name="schedule"),
    path("schedules/<row:pk>/enable/", scheduling.enable, name="schedule-enable"),
    path("schedules/<row:pk>/delete/", scheduling.delete, name="schedule-delete"),
    path("schedules/<row:pk>/start/", scheduling.start, name="schedule-start"),
    path("workers/", views.workers, name="workers"),
    path("start/", starting.choose, name="choose"),
    path("start/<str:pipeline>/", starting.start, name="start"),
]
