"""The one page to log in at, for the dashboard and for the admin."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.views import LoginView
from django.http import HttpResponse

from djinn.dashboard.forms import LoginForm


class Login(LoginView):
    """Django's; 429 for whoever has tried too often."""

    template_name = "dashboard/login.html"
    form_class = LoginForm

    def form_invalid(self, form: Any) -> HttpResponse:
        response = super().form_invalid(form)
        if form.retry_after_seconds:
            response.status_code = 429
            response.headers["Retry-After"] = str(form.retry_after_seconds)
        return response
