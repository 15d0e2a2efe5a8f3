from __future__ import annotations

from django.urls import path, re_path

from djinn.gateway import views

urlpatterns = [
    path("healthz", views.healthz),
    path("v1/models", views.models),
    path("v1/chat/completions", views.chat_completions),
    re_path("", views.not_here),
]
