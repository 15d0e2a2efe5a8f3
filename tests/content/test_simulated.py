"""Every branch of what ships, and of files of other systems, is walked by stub agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from djinn.pipelines.loader import load_folder
from djinn.pipelines.simulate import explore

PLACES = (Path(__file__).resolve().parents[2] / "pipelines", Path(__file__).parent / "foreign")
KNOWN = {name: loaded.pipeline for place in PLACES for name, loaded in load_folder(place).pipelines.items()}
NAMES = (
    *("bugfix", "demo", "engineering", "execute", "feature", "import", "parallel-review", "planning", "resolve"),
    *("delivery", "newsletter", "support-triage"),
)


@pytest.mark.parametrize("name", NAMES)
def test_every_branch_can_be_walked(name: str) -> None:
    coverage = explore(KNOWN[name], KNOWN)
    assert coverage.branches
    assert [str(branch) for branch in coverage.uncovered] == []
