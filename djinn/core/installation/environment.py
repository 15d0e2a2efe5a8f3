"""What the environment of each process of the stack holds: what that process needs, and nobody else's keys."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

PR_SET_DUMPABLE = 4
PROVIDERS_WITH_KEYS = "DJINN_PROVIDERS_WITH_KEYS"
"""Names the providers whose calls can be paid, separated by commas, for processes that do not hold the keys."""
NAMES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH",
    "DATABASE_URL", "REDIS_URL", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "ALL_PROXY",
})  # fmt: skip
PREFIXES = ("DJINN_", "LC_", "PYTHON", "PG", "DOCKER_")
"""Settings of ours, of the locale, of the interpreter, of libpq, and of the Docker client."""


@dataclass(frozen=True)
class Keys:
    """The keys in an environment: `values` by the variable that holds each, `providers` whom they let us call."""

    values: Mapping[str, str] = field(default_factory=dict)
    providers: tuple[str, ...] = ()


_finders: list[Callable[[Mapping[str, str]], Keys]] = []


def register_keys(find: Callable[[Mapping[str, str]], Keys]) -> None:
    """Let an app above say which variables hold keys: they are given to the gateway alone."""
    _finders.append(find)


def keys_in(values: Mapping[str, str]) -> Keys:
    """All keys that registered apps know in that environment."""
    found = [find(values) for find in _finders]
    variables = {name: value for keys in found for name, value in keys.values.items()}
    return Keys(variables, tuple(provider for keys in found for provider in keys.providers))


def shared_environment(values: Mapping[str, str]) -> dict[str, str]:
    """What of an environment every process of the stack gets: no key, and nothing that belongs to other programs."""
    keys = keys_in(values).values
    return {
        name: value
        for name, value in values.items()
        if (name in NAMES or name.startswith(PREFIXES)) and name not in keys
    }


def hide_environment() -> None:
    """Keep other processes of our user from reading `/proc/<pid>/environ`; nothing hides it from root.

    Linux then gives that file, and our memory, to root (PR_SET_DUMPABLE in prctl(2)); there is no core dump either.
    Children begin without it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "prctl")
