"""What a step's result means: which key of `onResult` it is, and that it is one where it has to be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from djinn.pipelines.history import Past, Status
from djinn.pipelines.schema import JSON, Route, Step
from runtime_image.djinn_runtime.protocol import folded

__all__ = [
    "DECISION",
    "UNMATCHED",
    "action_of",
    "folded",
    "key_of",
    "none_of",
    "rule_of",
    "takes_rejection",
    "unmatched",
]

UNMATCHED = "unmatched"
"""Why a step fails whose result matches no key of `onResult` although it has to."""
DECISION = "DECISION"
"""The output of an approval that names none."""
LONGEST_SHOWN = 120

Outputs = Mapping[str, JSON]


def key_of(step: Step, outputs: Outputs) -> str | None:
    """The key that is the whole value of an output, of the first declared one that is any; for an approval, of its
    decision. None when there is none."""
    keys = {folded(key): key for key in step.on_result}
    for name in step.outputs or ((DECISION,) if step.kind == "approve" else ()):
        key = keys.get(folded(outputs[name])) if name in outputs else None
        if key is not None:
            return key
    return None


def action_of(step: Step, past: Past) -> tuple[tuple[str, ...], Route | None]:
    """What the step run's result asks for, with the path of its key, `onResult.KEY` or `else`. Empty and None is
    nothing, as for a step run that did not succeed."""
    if past.status is not Status.SUCCEEDED or not step.on_result:
        return (), None
    key = key_of(step, past.outputs)
    if key is not None:
        return ("onResult", key), step.on_result[key]
    return (("else",), step.otherwise) if step.otherwise is not None else ((), None)


def takes_rejection(step: Step) -> bool:
    """Whether a rejection of this approval has an action, so that it does not fail the step."""
    return step.otherwise is not None or any(folded(key) == "rejected" for key in step.on_result)


def rule_of(step: Step) -> str:
    """What the outputs of a step have to be, in words; empty for a step whose result may be anything."""
    if not step.must_match:
        return ""
    return _rule(step.outputs, list(step.on_result))


def unmatched(step: Step, outputs: Outputs) -> str:
    """Why these outputs of a step that has succeeded make it fail after all; empty when they do not."""
    problem = none_of(list(step.on_result), step.outputs, outputs) if step.must_match else ""
    if not problem:
        return ""
    advice = "Name this result in 'onResult', or say with 'else' what follows any other"
    return f"the result matches no key of onResult: {problem}. {advice}"


def none_of(keys: Sequence[str], names: Sequence[str], outputs: Outputs) -> str:
    """What is wrong when none of the named outputs is one of the keys; empty when one is."""
    known = {folded(key) for key in keys}
    if any(folded(outputs[name]) in known for name in names if name in outputs):
        return ""
    given = ", ".join(f"{name} is {_shown(outputs.get(name))}" for name in names)
    return f"{given}, but {_rule(names, keys)}"


def _rule(names: Sequence[str], keys: Sequence[str]) -> str:
    which = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    return f"{which} must be exactly {keys[0] if len(keys) == 1 else 'one of ' + ' | '.join(keys)}"


def _shown(value: JSON) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}..."
