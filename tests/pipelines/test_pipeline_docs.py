"""The examples of the documentation load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from djinn.pipelines.json_schema import PIPELINE_WORDS, STEP_WORDS
from djinn.pipelines.loader import load_text

PAGE = (Path(__file__).parents[2] / "docs/pipelines.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_loads_without_a_warning(text: str) -> None:
    assert load_text(text, file="example.yaml").warnings == ()


@pytest.mark.parametrize("key", sorted({*PIPELINE_WORDS, *STEP_WORDS} - {"steps"}))
def test_every_key_is_described(key: str) -> None:
    assert re.search(rf"`[^`\n]*\b{re.escape(key)}\b", PAGE)
