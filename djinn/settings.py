"""Settings of every process of Djinn; what differs between installations is in the environment (docs/settings.md)."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import django_stubs_ext
import environ

from djinn.core.installation.paths import PROJECT, present_installation
from djinn.core.logging import configure_logging
from djinn.core.origins import trusted_origins

django_stubs_ext.monkeypatch()  # generic classes of Django may be subscripted

env = environ.Env()
INSTALLATION = present_installation()

BASE_DIR = PROJECT
DEBUG = env.bool("DJINN_DEBUG", default=False)
SECRET_KEY = env.str("DJINN_SECRET_KEY", default="") or INSTALLATION.secret_key()
ALLOWED_HOSTS = env.list("DJINN_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = trusted_origins(env.list("DJINN_TRUSTED_ORIGINS", default=[]))

# --- Applications -----------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "channels",
    "django_celery_beat",
    "django_eventstream",
    "django_filters",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "djinn.core",
    "djinn.accounts",
    "djinn.events",
    "djinn.providers",
    "djinn.agents",
    "djinn.executions",
    "djinn.runs",
    "djinn.gateway",
    "djinn.api",
    "djinn.dashboard",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "djinn.dashboard.middleware.content_security_policy",
]
ROOT_URLCONF = "djinn.urls"
ASGI_APPLICATION = "djinn.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "djinn.dashboard.asking.waiting_count",
                "djinn.dashboard.context.standing",
            ]
        },
    }
]

# --- State ------------------------------------------------------------------------------------------------------------
HOST_NAME = env.str("DJINN_HOST_NAME", default=socket.gethostname())
WORKER_NAME = f"{HOST_NAME}:{os.getpid()}"
DATABASES = {"default": env.db_url("DATABASE_URL", default=INSTALLATION.database_url)}
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 5,
    # A process that is frozen inside a transaction would keep its rows locked, and the sweep waiting, for ever.
    "options": f"-c idle_in_transaction_session_timeout={env.int('DJINN_IDLE_TRANSACTION_SECONDS', default=30)}s",
    "application_name": WORKER_NAME[-63:],  # told in pg_stat_activity, and by a lease's owner
    "pool": {
        "min_size": 0,
        "max_size": env.int("DJINN_DATABASE_CONNECTIONS", default=16),
        "timeout": 10,
        "max_idle": 60,
        "num_workers": 1,
    },
    **DATABASES["default"].get("OPTIONS", {}),
}
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = env.str("REDIS_URL", default=INSTALLATION.redis_url)
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # redis-py 8 gives up an idle socket after 5 s unless told otherwise: a consumer that waits would die of it.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}], "prefix": "djinn"},
    }
}

# --- Celery: the broker is a doorbell, so nothing is kept in it and nothing waits for it long -------------------------
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 5,
    "socket_connect_timeout": 3,
    "health_check_interval": 10,
    "visibility_timeout": 3600,
    "global_keyprefix": env.str("DJINN_BROKER_PREFIX", default="djinn-"),
}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "control"
CELERY_TASK_CREATE_MISSING_QUEUES = True
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
SILENT_SECONDS = env.float("DJINN_SILENT_SECONDS", default=60.0)
"""After how long without a canary task a worker counts as dead."""
CELERY_BEAT_CRON_STARTING_DEADLINE = 3600
"""How late a schedule may still start a run when beat was away at its time; later, the next time is waited for. Less
than an hour would lose the local times that a change of the clock leaves out."""
CELERY_BEAT_SCHEDULE = {
    "canary": {"task": "core.call_canaries", "schedule": SILENT_SECONDS / 3},
    "forget_expired": {"task": "accounts.forget_expired", "schedule": 3600.0},
}
CELERY_TIMEZONE = "UTC"

# --- Streams ----------------------------------------------------------------------------------------------------------
EVENTSTREAM_STORAGE_CLASS = "djinn.events.sse.LogStorage"
EVENTSTREAM_CHANNELMANAGER_CLASS = "djinn.events.sse.LogChannelManager"

# --- People -----------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("DJINN_HTTPS", default=False)
X_FRAME_OPTIONS = "DENY"

# --- REST -------------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "djinn.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["djinn.api.parsing.JsonBody"],
    "DEFAULT_PAGINATION_CLASS": "djinn.api.pagination.NewestFirst",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "djinn.api.errors.error_response",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Djinn",
    "DESCRIPTION": "Start, watch and stop runs of agent pipelines.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "ENUM_NAME_OVERRIDES": {
        "Status": "djinn.runs.states.RunStatus",
        "StepStatus": "djinn.runs.states.StepStatus",
        "ApprovalStatus": "djinn.runs.states.ApprovalStatus",
    },
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

# --- Pages ------------------------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = INSTALLATION.home / "static"
WHITENOISE_USE_FINDERS = True
LANGUAGE_CODE = "en"
USE_TZ = True
TIME_ZONE = "UTC"

# --- Djinn itself -----------------------------------------------------------------------------------------------------
PIPELINES_DIRECTORY = Path(env.str("DJINN_PIPELINES", default=str(BASE_DIR / "pipelines"))).resolve()
AGENTS_DIRECTORY = Path(env.str("DJINN_AGENTS", default=str(BASE_DIR / "agents"))).resolve()
RUNTIME_DIRECTORY = Path(env.str("DJINN_RUNTIME", default=str(BASE_DIR / "runtime_image"))).resolve()
RUNNER = env.str("DJINN_RUNNER", default="auto")
INSTALLATION_NAME = env.str("DJINN_INSTALLATION", default="") or hashlib.sha256(SECRET_KEY.encode()).hexdigest()[:12]
DEFAULT_IMAGE = env.str("DJINN_IMAGE", default="djinn-agent:latest")
DEFAULT_MODEL = env.str("DJINN_MODEL", default="")
STALL_SECONDS = env.float("DJINN_STALL_SECONDS", default=60.0)
"""How long a model's answer may be silent, once it has begun, before it counts as stalled."""
FIRST_TOKEN_SECONDS = min(env.float("DJINN_FIRST_TOKEN_SECONDS", default=300.0), 570.0)
"""How long a model may think before its first word, and between two chunks. Less than the runtime's own patience."""
BASE_URL = env.str("DJINN_BASE_URL", default=INSTALLATION.url).rstrip("/")

REPOSITORY_HOSTS = env.list("DJINN_REPOSITORY_HOSTS", default=[])
"""Hosts (`host` or `host:port`) that repositories are cloned from wherever they are; others need public addresses."""

LEASE_SECONDS = env.float("DJINN_LEASE_SECONDS", default=5.0)
"""How long a worker may be silent before another one takes over its executions."""
LEASE_RENEW_SECONDS = LEASE_SECONDS / 5
LEASE_MARGIN_SECONDS = LEASE_SECONDS / 4
"""By how much a worker stops touching its containers before the lease ends, by its own monotonic clock."""
SWEEP_SECONDS = 2.0
HOST_LOST_SECONDS = env.float("DJINN_HOST_LOST_SECONDS", default=600.0)
"""How long every worker of a host may be silent before what runs there is given up as lost."""
KEEP_CONTAINER_SECONDS = env.float("DJINN_KEEP_CONTAINER_SECONDS", default=600.0)
"""How long an ended container is kept, so that a late second start finds its name taken."""
KEEP_WORKSPACE_SECONDS = env.float("DJINN_KEEP_WORKSPACE_DAYS", default=14.0) * 86400
"""How long the files of a run that has ended are kept on its host; its diffs and outputs stay in the database."""
STOP_GRACE_SECONDS = 2.0
DISK_BYTES = env.int("DJINN_DISK_MB", default=5 * 1024) * 1024**2
"""What an execution's workspace and directory may take of the disk together, unless its step says otherwise."""
DISK_FILES = env.int("DJINN_DISK_FILES", default=500_000)
"""How many files and directories they may hold."""
DISK_RESERVE_BYTES = env.int("DJINN_DISK_RESERVE_MB", default=2 * 1024) * 1024**2
"""How much of each disk executions leave free; at most a twentieth of it."""
EXECUTIONS_PER_WORKER = env.int("DJINN_EXECUTIONS_PER_WORKER", default=50)

configure_logging(level=env.str("DJINN_LOG_LEVEL", default="INFO"), as_json=env.bool("DJINN_LOG_JSON", default=False))
LOGGING_CONFIG = None
