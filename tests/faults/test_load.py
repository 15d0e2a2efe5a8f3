"""What a storm runs: a storm of fewer pipelines than were meant would show less, and look as green."""

from __future__ import annotations

import pytest

from djinn.pipelines.errors import PipelineInvalid
from tests.faults.load import HUNGRY, all_pipelines, install


def test_every_pipeline_of_a_storm_is_taken() -> None:
    taken: dict[str, str] = {}
    install(taken.__setitem__)
    assert taken == all_pipelines()


def test_a_pipeline_that_the_product_refuses_ends_the_storm_before_it_begins() -> None:
    with pytest.raises(PipelineInvalid):
        install({}.__setitem__, texts={"storm-bad": "steps: [{id: A, nonsense: 1}]"})


def test_a_storm_of_one_pipeline_has_the_hungry_one_besides() -> None:
    taken: dict[str, str] = {}
    install(taken.__setitem__, only=["storm-linear"])
    assert set(taken) == {"storm-linear", HUNGRY}
