"""The same done to many runs: each in its own transaction, so that one refusal holds up no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from djinn.accounts.models import User
from djinn.core.errors import UserError
from djinn.runs.continuing import retry_run
from djinn.runs.models import Run
from djinn.runs.selectors import runs_seen_by
from djinn.runs.services import cancel_run

MOST_AT_ONCE = 200


@dataclass(frozen=True)
class Outcome:
    """What became of one run: `run` is the one that was changed or made, None when it was refused with `error`."""

    id: int
    run: int | None = None
    code: str = ""
    error: str = ""


def cancel_runs(*, ids: Sequence[int], user: User | None = None) -> list[Outcome]:
    """Cancel the runs; per run, in the order given, whether that was stored or why not. At most 200 at once."""
    return _each(ids, user, lambda run: cancel_run(run=run, user=user))


def retry_runs(*, ids: Sequence[int], user: User | None = None) -> list[Outcome]:
    """Retry the runs; per run, in the order given, the new one or why there is none. At most 200 at once."""
    return _each(ids, user, lambda run: retry_run(run=run, user=user))


def _each(ids: Sequence[int], user: User | None, act: Callable[[Run], Run]) -> list[Outcome]:
    wanted = list(dict.fromkeys(ids))
    if not 0 < len(wanted) <= MOST_AT_ONCE:
        raise UserError(f"Name 1 to {MOST_AT_ONCE} runs at once.", details={"ids": f"1 to {MOST_AT_ONCE}"})
    seen = Run.objects.all() if user is None else runs_seen_by(user)
    runs = seen.in_bulk(wanted)
    return [_one(number, runs.get(number), act) for number in wanted]


def _one(number: int, run: Run | None, act: Callable[[Run], Run]) -> Outcome:
    if run is None:
        return Outcome(number, code="not_found", error=f"There is no run {number}.")
    try:
        return Outcome(number, run=act(run).pk)
    except UserError as exc:
        return Outcome(number, code=exc.code, error=exc.message)
