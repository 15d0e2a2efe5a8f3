"""Which providers there are: those we know by name, when their key is in the environment, and those it describes.

A provider that we do not know is described by two variables, for example for a server in the house:
`DJINN_PROVIDER_LOCAL_URL=http://127.0.0.1:11434/v1` and, if it wants one, `DJINN_PROVIDER_LOCAL_KEY`. The same
variables override a known one. A model is written `provider/model`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings

from djinn.core.errors import UserError
from djinn.core.installation.environment import PROVIDERS_WITH_KEYS, Keys
from djinn.providers.base import Provider
from djinn.providers.compatible import CompatibleProvider
from djinn.providers.scripted import ScriptedProvider

KNOWN = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "google": ("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY"),
}
"""Base URL and the variable that holds the key, from each provider's documentation of its OpenAI-compatible API."""


_DESCRIBED = re.compile(r"DJINN_PROVIDER_(.+?)_(?:URL|KEY)")


@dataclass(frozen=True)
class ModelName:
    """`provider/model`, taken apart. The model's part may hold further slashes."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


def parse_model(text: str) -> ModelName:
    """The parts of `provider/model`; raises `UserError`."""
    provider, slash, model = text.partition("/")
    if not (provider and slash and model):
        raise UserError(f"{text!r} is no model: write provider/model.", details={"model": "provider/model"})
    return ModelName(provider, model)


def find_provider(name: str, *, environment: Mapping[str, str] | None = None) -> Provider:
    """The provider of that name; raises `UserError` that says which variable is missing."""
    if name == ScriptedProvider.name:
        return ScriptedProvider(settings.PIPELINES_DIRECTORY / "scripts")
    values = os.environ if environment is None else environment
    url, key_variable = _place(name, values)
    key = (values.get(f"{_prefix(name)}_KEY") or values.get(key_variable, "")).strip()
    if not key and f"{_prefix(name)}_URL" not in values:
        raise UserError(f"Provider {name!r} has no key: set {key_variable} in the gateway's environment.")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"The key of provider {name!r} holds characters that no key has.")
    return CompatibleProvider(name, base_url=url, key=key)


def check_model(text: str) -> None:
    """Raise `UserError` unless the text names a model of a known provider. Only the gateway has to know its key."""
    name = parse_model(text)
    if name.provider != ScriptedProvider.name:
        _place(name.provider, os.environ)


def has_key(provider: str) -> bool:
    """Whether calls of that provider can be made: its key is here, or whoever started us says that the gateway has it.

    Only the gateway holds keys. Others are told the providers' names by `DJINN_PROVIDERS_WITH_KEYS`; a command that a
    person types beside a running stack reads them from the file that the stack left.
    """
    if provider == ScriptedProvider.name or _prefix(provider) in map(_prefix, keys_of(os.environ).providers):
        return True
    listed = os.environ.get(PROVIDERS_WITH_KEYS)
    if listed is None:
        listed = settings.INSTALLATION.providers_with_keys
    return _prefix(provider) in {_prefix(name.strip()) for name in listed.split(",")}


def keys_of(values: Mapping[str, str]) -> Keys:
    """The providers' keys in an environment, and the providers that can be called with it."""
    own = [match[1] for name in values if (match := _DESCRIBED.fullmatch(name))]
    described = {name.lower().replace("_", "-") for name in own}
    variables = {variable for _, variable in KNOWN.values()} | {f"{_prefix(name)}_KEY" for name in described}
    found = {name: value for name in sorted(variables) if (value := values.get(name, "").strip())}
    return Keys(found, tuple(name for name in sorted({*KNOWN, *described}) if _can_be_called(name, values)))


def _can_be_called(name: str, values: Mapping[str, str]) -> bool:
    try:
        find_provider(name, environment=values)
    except UserError:
        return False
    return True


def _place(name: str, values: Mapping[str, str]) -> tuple[str, str]:
    """The provider's base URL, and the variable that holds its key."""
    url, key_variable = KNOWN.get(name, ("", f"{_prefix(name)}_KEY"))
    url = values.get(f"{_prefix(name)}_URL", url)
    if not url:
        known = ", ".join([ScriptedProvider.name, *KNOWN])
        raise UserError(f"There is no provider {name!r}. Known: {known}; or set {_prefix(name)}_URL.")
    return url, key_variable


def _prefix(name: str) -> str:
    return f"DJINN_PROVIDER_{name.upper().replace('-', '_')}"
