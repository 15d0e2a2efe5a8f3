"""The contract of a provider: one chat completion, streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from djinn.core.errors import OutsideError
from djinn.providers.faults import DOUBTFUL, PERMANENT, Fault, Told

Body = dict[str, Any]
"""A JSON object of OpenAI's chat completions dialect."""


class ProviderError(OutsideError):
    """The provider refused, broke off or could not be reached. `status` is what the container is answered with.

    `failure` says in a few words what `message` says in a sentence.
    """

    def __init__(self, told: Told, *, status: int | None = None, retry_after_seconds: float | None = None) -> None:
        permanent = told.fault in PERMANENT
        super().__init__(
            told.message,
            permanent=permanent,
            status=(400 if permanent else 502) if status is None else status,
            retry_after_seconds=retry_after_seconds,
        )
        self.fault = told.fault
        self.failure = told.failure

    @property
    def is_doubtful(self) -> bool:
        """Whether an answer may have been begun, and paid for, without being of use."""
        return self.fault in DOUBTFUL


class ProviderRefused(ProviderError):
    """Raised instead of any chunk: the call was refused or could not even be sent, so that it costs nothing."""


def refused(message: str, *, fault: Fault = Fault.REFUSED, status: int = 400) -> ProviderRefused:
    """A refusal in the given words."""
    return ProviderRefused(Told(fault, message[:200], message), status=status)


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
