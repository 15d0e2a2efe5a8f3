"""Who may do what."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone


class Role(models.TextChoices):
    """What a person may do. Each role may do what the ones before it may."""

    NONE = "none", "None"
    """May log in and sees only what they started themselves."""
    VIEWER = "viewer", "Viewer"
    """Sees everything, changes nothing."""
    OPERATOR = "operator", "Operator"
    """Starts runs and stops them."""
    ADMIN = "admin", "Administrator"
    """May do everything in the dashboard and the API. Django's admin asks for its own staff or superuser status."""


RANK = {role: rank for rank, role in enumerate(Role)}


class User(AbstractUser):
    """A person. `is_superuser` counts as the role of administrator."""

    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)

    def has_role(self, role: Role) -> bool:
        """Whether this person's role is at least `role`."""
        return self.is_active and (self.is_superuser or RANK[Role(self.role)] >= RANK[role])


class ApiToken(models.Model):
    """A program's key: it may do what its person may. Only a hash is kept; the key itself is shown once."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    key_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"


class Brake(models.Model):
    """Failed attempts at one account, or from one network; what counts as one is in `brakes.py`."""

    subject = models.CharField(max_length=100, unique=True)
    """Such as `login:192.0.2.0/24`; of an account the SHA-256 of the name, since people type passwords there."""
    failures = models.PositiveIntegerField(default=0)
    failed_at = models.DateTimeField(default=timezone.now)
    blocked_until = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-failed_at"]

    def __str__(self) -> str:
        return self.subject
