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
from djinn.providers.faults import Place
from djinn.providers.scripted import ScriptedProvider
from djinn.providers.streams import Patience

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
LABELS = {
    "openai": "OpenAI", "anthropic": "Anthropic", "google": "Google", "openrouter": "OpenRouter",
    "mistral": "Mistral", "groq": "Groq", "deepseek": "DeepSeek", "xai": "xAI",
}  # fmt: skip


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
    url, place = _place(name, values)
    key = _key(name, place, values)
    if not key and not _is_described(name, values):
        raise UserError(no_key(name))
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"The key of provider {name!r} holds characters that no key has.")
    patience = Patience(settings.FIRST_TOKEN_SECONDS, settings.STALL_SECONDS)
    return CompatibleProvider(name, base_url=url, key=key, place=place, patience=patience)


def has_key(name: str, *, environment: Mapping[str, str] | None = None) -> bool:
    """Whether calls of that provider can be made: its key is here, none is wanted, or the gateway is said to have it.

    Only the gateway holds keys. Others are told the providers' names by `DJINN_PROVIDERS_WITH_KEYS`; a command that a
    person types beside a running stack reads them from the file that the stack left.
    """
    values = os.environ if environment is None else environment
    if name == ScriptedProvider.name or _is_described(name, values):
        return True
    listed = values.get(PROVIDERS_WITH_KEYS)
    if listed is None:
        listed = settings.INSTALLATION.providers_with_keys
    if name and _prefix(name) in {_prefix(each.strip()) for each in listed.split(",")}:
        return True
    return name in KNOWN and bool(_key(name, _place(name, values)[1], values))


def check_model(text: str) -> None:
    """Raise `UserError` unless the text names a model that a provider with a key can be asked for.

    A model that the price table does not know is no error: new ones appear all the time.
    """
    name = parse_model(text)
    if name.provider == ScriptedProvider.name:
        ScriptedProvider(settings.PIPELINES_DIRECTORY / "scripts").check(name.model)
    else:
        _place(name.provider, os.environ)
        if not has_key(name.provider):
            raise UserError(no_key(name.provider))


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


def no_key(name: str) -> str:
    """That a provider has no key, and what to do."""
    _, place = _place(name, os.environ)
    return f"{place.label} has no key: set {place.key_variable} where Djinn is started, or choose another model."


def label_of(name: str) -> str:
    """A provider's name as people write it."""
    return LABELS.get(name, name)


def _key(name: str, place: Place, values: Mapping[str, str]) -> str:
    return (values.get(f"{_prefix(name)}_KEY") or values.get(place.key_variable, "")).strip()


def _is_described(name: str, values: Mapping[str, str]) -> bool:
    return bool(values.get(f"{_prefix(name)}_URL"))


def _place(name: str, values: Mapping[str, str]) -> tuple[str, Place]:
    """The provider's base URL, and what holds its key and address."""
    prefix = _prefix(name)
    url, key_variable = KNOWN.get(name, ("", f"{prefix}_KEY"))
    url = values.get(f"{prefix}_URL", url)
    if not url:
        known = ", ".join([ScriptedProvider.name, *KNOWN])
        raise UserError(f"There is no provider {name!r}. Known: {known}; or set {prefix}_URL.")
    return url, Place(label_of(name), key_variable, f"{prefix}_URL")


def _prefix(name: str) -> str:
    return f"DJINN_PROVIDER_{name.upper().replace('-', '_')}"
