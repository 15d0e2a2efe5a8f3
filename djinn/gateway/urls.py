from __future__ import annotations

from django.urls import path, re_path

from djinn.gateway import outputs, views

urlpatterns = [
    path("healthz", views.healthz),
    path("v1/models", views.models),
    path("v1/chat/completions", views.chat_completions),
    path("v1/outputs/check", outputs.check_output),
    re_path("", views.not_here),
]
