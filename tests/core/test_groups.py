"""The suite's own promise: tests of one group run in one worker, so that they share what is dear to set up."""

from __future__ import annotations

import os

import pytest


@pytest.mark.xdist_group("kept-together")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="all tests run in one process")
def test_a_group_is_told_to_who_gives_tests_to_workers(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith("@kept-together")
