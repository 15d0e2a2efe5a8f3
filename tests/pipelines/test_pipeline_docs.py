"""The examples of the documentation load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from djinn.pipelines.json_schema import PIPELINE_WORDS, STEP_WORDS
from djinn.pipelines.loader import load_text
from djinn.pipelines.simulate import explore

ROOT = Path(__file__).parents[2]
PAGE, README = ((ROOT / name).read_text() for name in ("docs/pipelines.md", "README.md"))
EXAMPLES = [
    text for page in (PAGE, README) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "steps:" in text
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_loads_without_a_warning(text: str) -> None:
    assert load_text(text, file="example.yaml").warnings == ()


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_branch_of_an_example_can_be_taken(text: str) -> None:
    coverage = explore(load_text(text, file="example.yaml").pipeline)
    assert [str(branch) for branch in coverage.uncovered] == []


@pytest.mark.parametrize("key", sorted({*PIPELINE_WORDS, *STEP_WORDS} - {"steps"}))
def test_every_key_is_described(key: str) -> None:
    assert re.search(rf"`[^`\n]*\b{re.escape(key)}\b", PAGE)
