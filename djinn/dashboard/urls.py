"""The pages."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path, register_converter

from djinn.dashboard import starting, views
from djinn.dashboard.forms import LoginForm


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
    path("login/", LoginView.as_view(template_name="dashboard/login.html", form_class=LoginForm), name="login"),
    path("logout/", LogoutView.as_view(next_page="dashboard:login"), name="logout"),
    path("", views.runs, name="runs"),
    path("runs/<row:pk>/", views.run, name="run"),
    path("runs/<row:pk>/cancel/", views.cancel, name="cancel"),
    path("start/", starting.choose, name="choose"),
    path("start/<str:pipeline>/", starting.start, name="start"),
]
