"""Expressions of the template language on their own: `when: VERDICT == "PASS" and not inputs.dry_run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from jinja2 import nodes

from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.evaluation import Evaluation
from djinn.pipelines.schema import JSON
from djinn.pipelines.template import Study, checked, study

MAX_EXPRESSION_CHARACTERS = 4096
MAX_VALUE_BYTES = 262_144


def evaluate(text: str, names: Mapping[str, JSON]) -> JSON:
    """The value of the expression; what does not exist is null. Raises `TemplateInvalid`."""
    expression = parsed(text)
    return cast("JSON", Evaluation(names, MAX_VALUE_BYTES).value(expression))


def study_expression(text: str) -> Study:
    """What is wrong with the expression, and which names it uses."""
    try:
        parsed(text)
    except TemplateInvalid as exc:
        return Study(problems=(TemplateInvalid(exc.message),))
    return study(_wrapped(text))


def parsed(text: str) -> nodes.Expr:
    """The tree of the expression; raises `TemplateInvalid`."""
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise TemplateInvalid(f"the expression is longer than {MAX_EXPRESSION_CHARACTERS} characters")
    body = checked(_wrapped(text)).body
    parts = body[0].nodes if len(body) == 1 and isinstance(body[0], nodes.Output) else []
    if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        raise TemplateInvalid("this is not one expression, such as VERDICT == 'PASS'; it is written without {{ }}")
    return parts[0]


def _wrapped(text: str) -> str:
    return "{{ (" + text.strip() + "\n) }}"
