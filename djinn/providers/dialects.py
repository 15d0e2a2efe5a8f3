"""What a model takes: the request that a container sends is put into the dialect of its provider before it is sent.

From the providers' references of their chat completions. What a model would refuse and what has no meaning for it is
left out; nothing is added.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from djinn.providers.base import Body

LENGTHS = ("max_completion_tokens", "max_tokens")
"""The two names of the bound on an answer."""
DESCRIBED = "*"
"""A provider that is not known by name."""
KNOWN = frozenset({"openai", "anthropic", "google", "openrouter", "mistral", "groq", "deepseek", "xai", "scripted"})

_SAMPLING = frozenset(
    {"temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"}
)
_REASONS = r"(o\d|gpt-[5-9]|codex)(?!.*-chat)"


@dataclass(frozen=True)
class Rule:
    """For models of a provider whose name begins with a pattern."""

    provider: str
    models: str = ""
    length: str = ""
    """The only name of the answer's bound that they know."""
    without: frozenset[str] = frozenset()
    one_of: tuple[str, ...] = ()
    """Of these at most the first that is said."""


RULES = (
    Rule("openai", length="max_completion_tokens"),
    Rule("openai", _REASONS, without=_SAMPLING),
    Rule(DESCRIBED, _REASONS, length="max_completion_tokens", without=_SAMPLING),
    Rule("anthropic", r"claude-(opus-4-[7-9]|[a-z]+-[5-9])", without=frozenset({"temperature", "top_p", "top_k"})),
    Rule("anthropic", r"claude-[a-z]+-4", one_of=("temperature", "top_p")),
    Rule("mistral", length="max_tokens", without=frozenset({"stream_options"})),
    Rule("deepseek", "deepseek-reasoner", without=_SAMPLING),
    Rule(
        "xai",
        r"grok-(3-mini|4|code|build)(?!.*non-reasoning)",
        without=frozenset({"presence_penalty", "frequency_penalty", "stop"}),
    ),
)


def adapted(provider: str, model: str, body: Body) -> Body:
    """The request as this model takes it."""
    adapted = dict(body)
    for rule in RULES:
        if rule.provider == (provider if provider in KNOWN else DESCRIBED) and re.match(rule.models, model):
            _apply(rule, adapted)
    return adapted


def _apply(rule: Rule, body: Body) -> None:
    stated = [body[key] for key in LENGTHS if body.get(key) is not None]
    if rule.length and stated:
        for key in LENGTHS:
            body.pop(key, None)
        body[rule.length] = min(stated)
    for key in rule.without:
        body.pop(key, None)
    for key in [key for key in rule.one_of if body.get(key) is not None][1:]:
        body.pop(key)
