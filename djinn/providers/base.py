"""The contract of a provider: one chat completion, streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from djinn.core.errors import OutsideError

Body = dict[str, Any]
"""A JSON object of OpenAI's chat completions dialect."""


class ProviderError(OutsideError):
    """The provider refused, broke off or could not be reached. `status` is what the container is answered with."""


class ProviderRefused(ProviderError):
    """Raised instead of any chunk: the call was refused or could not even be sent, so that it costs nothing."""


@dataclass(frozen=True)
class CallContext:
    """Who asks: the scripted provider plays by it, the bill is kept by it."""

    execution: int
    agent: str
    step: str
    visit: int
    budgets: tuple[str, ...] = ()
    """Scopes of the budgets that the call counts in, as far as there are any."""


class Provider(Protocol):
    """A place where models are served."""

    name: str

    def chat(self, model: str, body: Body, context: CallContext) -> AsyncGenerator[Body]:
        """The chunks (`chat.completion.chunk`) of one answer, the last one with `usage`; raises `ProviderError`."""
