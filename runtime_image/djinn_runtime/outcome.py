"""How an execution ended: the data of the record `finished`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .protocol import FAILURE_REASONS, MAX_RECORD_BYTES, clean

MAX_OUTPUTS_BYTES = 48 * 1024
_ENVELOPE_BYTES = 512
_TEXT_SHARES = (8000, 2000, 400)


@dataclass(frozen=True)
class Outcome:
    """Succeeded when `reason` is None, otherwise failed for a reason of `FAILURE_REASONS`."""

    outputs: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    reason: str | None = None
    message: str = ""
    exit_code: int | None = None

    def data(self) -> dict[str, Any]:
        """What `finished` says; the texts are cut so that it fits one record with its outputs whole."""
        data: dict[str, Any] = {}
        for share in _TEXT_SHARES:
            data = self._data(share)
            if json_bytes(data) <= MAX_RECORD_BYTES - _ENVELOPE_BYTES:
                break
        return data

    def _data(self, share: int) -> dict[str, Any]:
        error = None
        if self.reason is not None:
            error = {"reason": self.reason, "message": self.message[:share]}
        return {
            "status": "failed" if error else "succeeded",
            "outputs": self.outputs,
            "summary": self.summary[:share],
            "error": error,
            "exit_code": self.exit_code,
        }


class Ended(Exception):
    """The work is over. Carries the outcome to record."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message or outcome.summary)
        self.outcome = outcome


def failed(reason: str, message: str, exit_code: int | None = None) -> Outcome:
    """A failed outcome."""
    if reason not in FAILURE_REASONS:
        raise ValueError(f"{reason!r} is no failure reason")
    return Outcome(reason=reason, message=str(clean(message)), exit_code=exit_code)


def json_bytes(value: Any) -> int:
    """The size of a value in the journal's encoding."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


def outputs_problem(outputs: dict[str, Any]) -> str | None:
    """Why these outputs cannot be recorded, or None."""
    size = json_bytes(outputs)
    if size <= MAX_OUTPUTS_BYTES:
        return None
    return f"the outputs are {size} bytes, at most {MAX_OUTPUTS_BYTES} fit; write large results to a file and name it"
